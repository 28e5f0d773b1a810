// Prints where kafkajs puts the keys of keys.txt, for README.md beside it.
const { readFileSync } = require("fs")
const { Partitioners } = require("kafkajs")

const keys = readFileSync("keys.txt", "utf8").split("\n").slice(0, -1)
const placesOf = partitioner =>
  keys.map(hex =>
    [12, 256].map(count => {
      const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({ partitionId, leader: 1 }))
      return partitioner()({ topic: "t", partitionMetadata, message: { key: Buffer.from(hex, "hex") } })
    })
  )
console.log(
  JSON.stringify({
    "kafkajs DefaultPartitioner": placesOf(Partitioners.DefaultPartitioner),
    "kafkajs LegacyPartitioner": placesOf(Partitioners.LegacyPartitioner),
  })
)
