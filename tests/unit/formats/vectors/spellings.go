// Prints how encoding/json writes the scalars of scalars.json, for README.md beside it.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
)

func scalar(node any) any {
	number, ok := node.(json.Number)
	if !ok {
		return node
	}
	if strings.ContainsAny(number.String(), ".e") {
		float, _ := number.Float64()
		return float
	}
	integer, _ := number.Int64()
	return integer
}

func text(value any) string {
	out, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func main() {
	content, err := os.ReadFile("scalars.json")
	if err != nil {
		panic(err)
	}
	var nodes []any
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	if err := decoder.Decode(&nodes); err != nil {
		panic(err)
	}
	found := [][2]string{}
	for _, node := range nodes {
		key := struct {
			ID  any    `json:"id"`
			Ort string `json:"ort/ö"`
		}{scalar(node), "x"}
		found = append(found, [2]string{text(scalar(node)), text(key)})
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string]any{"go": found}); err != nil {
		panic(err)
	}
}
