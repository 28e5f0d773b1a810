// Produces lines "key<TAB>value" from standard input with KafkaJS, as it is set by default.
const { Kafka, logLevel } = require("kafkajs");
const { readFileSync } = require("fs");

const [, , bootstrap, topic] = process.argv;

async function main() {
  const producer = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR }).producer();
  await producer.connect();
  const lines = readFileSync(0, "utf-8").split("\n").filter((line) => line);
  const messages = lines.map((line) => {
    const [key, value] = line.split("\t");
    return { key, value };
  });
  await producer.send({ topic, messages });
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
