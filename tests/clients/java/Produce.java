import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Produces lines "key<TAB>value" from standard input with Kafka's own client, as it is set by default. */
public class Produce {
    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0], topic = arguments[1], keys = arguments[2];
        String serializers = "org.apache.kafka.common.serialization.";
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", bootstrap,
                "key.serializer", serializers + keys + "Serializer",
                "value.serializer", serializers + "StringSerializer");
        try (KafkaProducer<Object, String> producer = new KafkaProducer<>(settings)) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] parts = line.split("\t", 2);
                Object key = keys.equals("Integer") ? (Object) Integer.valueOf(parts[0])
                        : keys.equals("Long") ? (Object) Long.valueOf(parts[0]) : parts[0];
                producer.send(new ProducerRecord<>(topic, key, parts[1]));
            }
        }
    }
}
