import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Produces lines {@code key<TAB>n} from standard input as Avro, with Kafka's own client and Apicurio's serializer, as they
 * are set by default but for the registration of schemas.
 */
public class ProduceAvro {
    private static final Schema ROW = new Schema.Parser().parse(
            "{\"type\":\"record\",\"name\":\"Row\",\"namespace\":\"clients\",\"fields\":[{\"name\":\"n\",\"type\":\"int\"}]}");

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0], topic = arguments[1], registry = arguments[2];
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", bootstrap,
                "key.serializer", StringSerializer.class,
                "value.serializer", AvroKafkaSerializer.class,
                "apicurio.registry.url", registry,
                "apicurio.registry.auto-register", true);
        try (KafkaProducer<String, GenericRecord> producer = new KafkaProducer<>(settings)) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] parts = line.split("\t", 2);
                GenericRecord row = new GenericData.Record(ROW);
                row.put("n", Integer.valueOf(parts[1]));
                producer.send(new ProducerRecord<>(topic, parts[0], row)).get();
            }
        }
        System.exit(0);
    }
}
