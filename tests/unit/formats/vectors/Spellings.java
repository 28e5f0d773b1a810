import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Prints how Jackson and Gson write the scalars of scalars.json, for README.md beside it. */
public class Spellings {
    static Object of(JsonNode node) {
        if (node.isNull()) return null;
        if (node.isBoolean()) return node.booleanValue();
        if (node.isTextual()) return node.textValue();
        return node.isIntegralNumber() ? (Object) node.longValue() : (Object) node.doubleValue();
    }

    static Object member(Object scalar) {
        Map<String, Object> key = new LinkedHashMap<>();
        key.put("id", scalar);
        key.put("ort/ö", "x");
        return key;
    }

    public static void main(String[] arguments) throws Exception {
        ObjectMapper jackson = new ObjectMapper();
        Gson gson = new GsonBuilder().serializeNulls().create();
        Map<String, List<List<String>>> found = new LinkedHashMap<>();
        found.put("jackson", new ArrayList<>());
        found.put("gson", new ArrayList<>());
        for (JsonNode node : jackson.readTree(Path.of("scalars.json").toFile())) {
            Object scalar = of(node);
            found.get("jackson").add(List.of(
                new String(jackson.writeValueAsBytes(scalar), StandardCharsets.UTF_8),
                new String(jackson.writeValueAsBytes(member(scalar)), StandardCharsets.UTF_8)));
            found.get("gson").add(List.of(gson.toJson(scalar), gson.toJson(member(scalar))));
        }
        System.out.println(jackson.writeValueAsString(found));
    }
}
