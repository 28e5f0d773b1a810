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
import java.util.concurrent.TimeUnit;
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
import org.eclipse.jetty.client.BufferingResponseListener;
import org.eclipse.jetty.client.HttpClient;
import org.eclipse.jetty.client.Result;
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
 * changelog, and rows over HTTP by interactive queries. A row that another instance has is fetched from there, by the
 * metadata of Kafka Streams, over kept connections and without a thread that waits.
 *
 * <p>Arguments: bootstrap servers, application id, source topic, state directory, HTTP port. Routes: {@code
 * /tables/table/<key>}, {@code /owner/<key>} and {@code /status}.
 */
public final class Peer {
    private static final String TABLE = "table";
    private static final String ROWS = "/tables/" + TABLE + "/";
    private static final String OWNER = "/owner/";
    private static final long FORWARD_SECONDS = 5;
    private static final byte[] NO_ROW = utf8("{\"detail\":\"no such key\"}");
    private static final byte[] NOT_READY = utf8("{\"detail\":\"not ready\"}");

    private final KafkaStreams streams;
    private final StringSerializer keySerializer = new StringSerializer();
    /** The local store of each partition; emptied whenever the streams' state changes. */
    private final Map<Integer, ReadOnlyKeyValueStore<String, byte[]>> stores = new ConcurrentHashMap<>();
    private final AtomicInteger restoring = new AtomicInteger();
    /** When the first restore began, and the CPU time of the process until then; a look from outside may come late. */
    private volatile long beganMs;
    private volatile long beganCpu;

    private final int port;
    private final HttpClient others;

    private Peer(String bootstrap, String application, String topic, Path state, int port, HttpClient others) {
        this.port = port;
        this.others = others;
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
        settings.put(StreamsConfig.APPLICATION_SERVER_CONFIG, "127.0.0.1:" + port);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, Integer.getInteger("standbys", 0));
        // How far behind an instance may be and still be given a task at once.
        settings.put(StreamsConfig.ACCEPTABLE_RECOVERY_LAG_CONFIG, Long.getLong("acceptable.lag", 10_000L));
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

    private KeyQueryMetadata owner(String key) {
        KeyQueryMetadata where = streams.queryMetadataForKey(TABLE, key, keySerializer);
        if (where == null || where == KeyQueryMetadata.NOT_AVAILABLE) {
            throw new InvalidStateStoreException("nowhere");
        }
        return where;
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
            try {
                if (path.startsWith(ROWS)) {
                    String key = path.substring(ROWS.length());
                    KeyQueryMetadata where = owner(key);
                    if (where.activeHost().port() != port) {
                        forward(where.activeHost().port(), path, response, callback);
                    } else {
                        byte[] row = stores.computeIfAbsent(where.partition(), Peer.this::store).get(key);
                        answer(row == null ? 404 : 200, row == null ? NO_ROW : row, response, callback);
                    }
                } else if (path.startsWith(OWNER)) {
                    String owner = String.format("{\"port\":%d}", owner(path.substring(OWNER.length())).activeHost().port());
                    answer(200, utf8(owner), response, callback);
                } else {
                    answer(200, utf8(status()), response, callback);
                }
            } catch (InvalidStateStoreException | IllegalStateException error) {
                answer(503, NOT_READY, response, callback);
            }
            return true;
        }

        private void forward(int there, String path, Response response, Callback callback) {
            others.newRequest("127.0.0.1", there)
                    .path(path)
                    .timeout(FORWARD_SECONDS, TimeUnit.SECONDS)
                    .send(new BufferingResponseListener() {
                        @Override
                        public void onComplete(Result result) {
                            if (result.isSucceeded()) {
                                answer(result.getResponse().getStatus(), getContent(), response, callback);
                            } else {
                                answer(503, NOT_READY, response, callback);
                            }
                        }
                    });
        }

        private void answer(int code, byte[] body, Response response, Callback callback) {
            response.setStatus(code);
            response.getHeaders().put(HttpHeader.CONTENT_TYPE, "application/json");
            response.getHeaders().put(HttpHeader.CONTENT_LENGTH, body.length);
            response.write(true, ByteBuffer.wrap(body), callback);
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
        Server server = new Server();
        HttpClient others = new HttpClient();
        // The server's threads: on one core, more of them would only take turns.
        others.setExecutor(server.getThreadPool());
        server.addBean(others);
        Peer peer = new Peer(arguments[0], arguments[1], arguments[2], Path.of(arguments[3]), port, others);
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
