// Produces lines "key<TAB>value" from standard input with KafkaJS, as it is set by default. With the URL of a schema
// registry, values are JSON {"n": ..} and become Avro.
const { SchemaRegistry, SchemaType } = require("@kafkajs/confluent-schema-registry");
const { Kafka, logLevel } = require("kafkajs");
const { readFileSync } = require("fs");

const [, , bootstrap, topic, url] = process.argv;

async function serializer() {
  if (!url) return (value) => value;
  const registry = new SchemaRegistry({ host: url });
  const schema = '{"type":"record","name":"Row","namespace":"clients","fields":[{"name":"n","type":"int"}]}';
  const { id } = await registry.register({ type: SchemaType.AVRO, schema }, { subject: `${topic}-value` });
  return (value) => registry.encode(id, JSON.parse(value));
}

async function main() {
  const serialize = await serializer();
  const producer = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR }).producer();
  await producer.connect();
  const lines = readFileSync(0, "utf-8").split("\n").filter((line) => line);
  const messages = await Promise.all(
    lines.map(async (line) => {
      const [key, value] = line.split("\t");
      return { key, value: await serialize(value) };
    }),
  );
  await producer.send({ topic, messages });
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
