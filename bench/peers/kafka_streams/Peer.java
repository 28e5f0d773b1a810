import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyQueryMetadata;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.ThreadMetadata;
import org.apache.kafka.streams.errors.InvalidStateStoreException;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.Callback;

/**
 * The same job as one Tablehouse worker, written as a Kafka Streams service: a KTable on RocksDB with its own
 * changelog, and rows over HTTP by interactive queries.
 *
 * <p>Arguments: bootstrap servers, application id, source topic, state directory, HTTP port. Routes: {@code
 * /tables/table/<key>} and {@code /status}.
 */
public final class Peer {
    private static final String TABLE = "table";
    private static final String ROWS = "/tables/" + TABLE + "/";

    private final KafkaStreams streams;
    private final StringSerializer keySerializer = new StringSerializer();
    /** The local store of each partition; emptied whenever the streams' state changes. */
    private final Map<Integer, ReadOnlyKeyValueStore<String, byte[]>> stores = new ConcurrentHashMap<>();
    private final AtomicInteger restoring = new AtomicInteger();
    /** When the first restore began, and the CPU time of the process until then; a look from outside may come late. */
    private volatile long beganMs;
    private volatile long beganCpu;

    private final String host;

    private Peer(String bootstrap, String application, String topic, Path state, int port) {
        host = "127.0.0.1:" + port;
        StreamsBuilder builder = new StreamsBuilder();
        builder.table(
                topic,
                Consumed.with(Serdes.String(), Serdes.serdeFrom(Serdes.ByteArray().serializer(), new CheckedJson())),
                // The store keeps the producer's bytes: nothing is serialised again, as in Tablehouse.
                Materialized.<String, byte[], KeyValueStore<Bytes, byte[]>>as(TABLE)
                        .withKeySerde(Serdes.String())
                        .withValueSerde(Serdes.ByteArray()));
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.APPLICATION_SERVER_CONFIG, host);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, Integer.getInteger("standbys", 0));
        Integer session = Integer.getInteger("session.ms");
        if (session != null) {
            settings.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, session);
            settings.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, session / 6);
        }
        streams = new KafkaStreams(builder.build(), settings);
        streams.setGlobalStateRestoreListener(new Restores());
        streams.setStateListener((now, before) -> stores.clear());
    }

    /** What Tablehouse does with a JSON value: decode all of it, refuse what is no JSON, keep the bytes. */
    private static final class CheckedJson implements Deserializer<byte[]> {
        private final ObjectMapper mapper = new ObjectMapper();

        @Override
        public byte[] deserialize(String topic, byte[] value) {
            try {
                if (value != null) {
                    mapper.readTree(value);
                }
                return value;
            } catch (IOException error) {
                throw new SerializationException(error);
            }
        }
    }

    private byte[] row(String key) {
        KeyQueryMetadata where = streams.queryMetadataForKey(TABLE, key, keySerializer);
        if (where == null || where == KeyQueryMetadata.NOT_AVAILABLE || !host.endsWith(":" + where.activeHost().port())) {
            throw new InvalidStateStoreException("not here");
        }
        return stores.computeIfAbsent(where.partition(), this::store).get(key);
    }

    private ReadOnlyKeyValueStore<String, byte[]> store(int partition) {
        return streams.store(
                StoreQueryParameters.fromNameAndType(TABLE, QueryableStoreTypes.<String, byte[]>keyValueStore())
                        .withPartition(partition));
    }

    private String status() {
        double applied = 0;
        for (Metric metric : streams.metrics().values()) {
            if (metric.metricName().name().equals("process-total")
                    && metric.metricName().group().equals("stream-thread-metrics")) {
                applied += (Double) metric.metricValue();
            }
        }
        int tasks = 0;
        for (ThreadMetadata metadata : streams.metadataForLocalThreads()) {
            tasks += metadata.activeTasks().size();
        }
        return String.format(
                "{\"running\":%b,\"tasks\":%d,\"restoring\":%d,\"applied\":%.0f,\"began_ms\":%d,\"began_cpu_ns\":%d}",
                streams.state() == KafkaStreams.State.RUNNING, tasks, restoring.get(), applied, beganMs, beganCpu);
    }

    /** Counts the partitions that are being restored. */
    private final class Restores implements StateRestoreListener {
        @Override
        public void onRestoreStart(TopicPartition partition, String store, long start, long end) {
            if (beganMs == 0) {
                beganCpu = ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
                beganMs = System.currentTimeMillis();
            }
            restoring.incrementAndGet();
        }

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long end, long count) {}

        @Override
        public void onRestoreEnd(TopicPartition partition, String store, long total) {
            restoring.decrementAndGet();
        }
    }

    private final class Rows extends Handler.Abstract {
        @Override
        public boolean handle(Request request, Response response, Callback callback) {
            String path = Request.getPathInContext(request);
            byte[] body;
            int code = 200;
            try {
                body = path.startsWith(ROWS) ? row(path.substring(ROWS.length())) : utf8(status());
                if (body == null) {
                    code = 404;
                    body = utf8("{\"detail\":\"no such key\"}");
                }
            } catch (InvalidStateStoreException | IllegalStateException error) {
                code = 503;
                body = utf8("{\"detail\":\"not ready\"}");
            }
            response.setStatus(code);
            response.getHeaders().put(HttpHeader.CONTENT_TYPE, "application/json");
            response.getHeaders().put(HttpHeader.CONTENT_LENGTH, body.length);
            response.write(true, ByteBuffer.wrap(body), callback);
            return true;
        }
    }

    /** Leaves the group too, so that the next start need not wait for the session to time out. */
    private void leave() {
        streams.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP)
                .withTimeout(Duration.ofSeconds(20)));
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[4]);
        Peer peer = new Peer(arguments[0], arguments[1], arguments[2], Path.of(arguments[3]), port);
        Server server = new Server();
        ServerConnector connector = new ServerConnector(server, new HttpConnectionFactory(new HttpConfiguration()));
        connector.setHost("127.0.0.1");
        connector.setPort(port);
        server.addConnector(connector);
        server.setHandler(peer.new Rows());
        server.start();
        peer.streams.start();
        Runtime.getRuntime().addShutdownHook(new Thread(peer::leave));
        server.join();
    }
}
