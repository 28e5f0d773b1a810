// Prints where the Go clients put the keys of keys.txt, for README.md beside it.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"os"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

type place func(key []byte, partitions int) int

func ofSarama(constructor sarama.PartitionerConstructor) place {
	return func(key []byte, partitions int) int {
		found, err := constructor("t").Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}, int32(partitions))
		if err != nil {
			panic(err)
		}
		return int(found)
	}
}

func ofKafkaGo(balancer kafka.Balancer) place {
	return func(key []byte, partitions int) int {
		all := make([]int, partitions)
		for i := range all {
			all[i] = i
		}
		return balancer.Balance(kafka.Message{Key: key}, all...)
	}
}

func ofFranz(partitioner kgo.Partitioner) place {
	return func(key []byte, partitions int) int {
		topic := partitioner.ForTopic("t")
		record := &kgo.Record{Topic: "t", Key: key}
		if backup, ok := topic.(kgo.TopicBackupPartitioner); ok {
			return backup.PartitionByBackup(record, partitions, nil)
		}
		return topic.Partition(record, partitions)
	}
}

func fnv32a(key []byte) uint32 {
	hash := fnv.New32a()
	hash.Write(key)
	return hash.Sum32()
}

func main() {
	file, err := os.Open("keys.txt")
	if err != nil {
		panic(err)
	}
	places := map[string]place{
		"sarama NewHashPartitioner":                     ofSarama(sarama.NewHashPartitioner),
		"sarama NewCustomHashPartitioner, as goka":      ofSarama(sarama.NewCustomHashPartitioner(fnv.New32a)),
		"sarama NewReferenceHashPartitioner":            ofSarama(sarama.NewReferenceHashPartitioner),
		"sarama NewConsistentCRCHashPartitioner":        ofSarama(sarama.NewConsistentCRCHashPartitioner),
		"sarama NewMurmur2Partitioner":                  ofSarama(sarama.NewMurmur2Partitioner),
		"kafka-go Hash":                                 ofKafkaGo(&kafka.Hash{}),
		"kafka-go ReferenceHash":                        ofKafkaGo(&kafka.ReferenceHash{}),
		"kafka-go CRC32Balancer, Consistent":            ofKafkaGo(kafka.CRC32Balancer{Consistent: true}),
		"kafka-go Murmur2Balancer":                      ofKafkaGo(kafka.Murmur2Balancer{}),
		"franz-go UniformBytesPartitioner, the default": ofFranz(kgo.UniformBytesPartitioner(64<<10, true, true, nil)),
		"franz-go StickyKeyPartitioner":                 ofFranz(kgo.StickyKeyPartitioner(nil)),
		"franz-go SaramaCompatHasher":                   ofFranz(kgo.StickyKeyPartitioner(kgo.SaramaCompatHasher(fnv32a))),
	}
	found := map[string][][2]int{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		key, err := hex.DecodeString(scanner.Text())
		if err != nil {
			panic(err)
		}
		for name, of := range places {
			found[name] = append(found[name], [2]int{of(key, 12), of(key, 256)})
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		panic(err)
	}
}
