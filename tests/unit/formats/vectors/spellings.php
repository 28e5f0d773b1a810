<?php
// Prints how json_encode writes the scalars of scalars.json, for README.md beside it.
$found = [];
foreach (json_decode(file_get_contents("scalars.json")) as $scalar) {
    $found[] = [json_encode($scalar), json_encode(["id" => $scalar, "ort/ö" => "x"])];
}
echo json_encode(["php" => $found]), "\n";
