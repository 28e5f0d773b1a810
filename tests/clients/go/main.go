// Produces lines "key<TAB>value" from standard input with one of Go's Kafka clients, each as it is set by default. For
// franz-go-avro the URL of a schema registry is given too, and values are JSON {"n": ..}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/hamba/avro/v2"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

type record struct{ key, value string }

func main() {
	library, bootstrap, topic := os.Args[1], os.Args[2], os.Args[3]
	produce := map[string]func(string, string, []record) error{
		"franz-go": franz, "franz-go-avro": franzAvro, "sarama": saramaSync, "kafka-go": segmentio, "kafka-go-hash": segmentioHash,
	}[library]
	var records []record
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "\t")
		records = append(records, record{key, value})
	}
	if err := produce(bootstrap, topic, records); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func franz(bootstrap, topic string, records []record) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, one := range records {
		sent := &kgo.Record{Key: []byte(one.key), Value: []byte(one.value)}
		if err := client.ProduceSync(context.Background(), sent).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

type row struct {
	N int `avro:"n" json:"n"`
}

const rowSchema = `{"type":"record","name":"Row","namespace":"clients","fields":[{"name":"n","type":"int"}]}`

func franzAvro(bootstrap, topic string, records []record) error {
	registry, err := sr.NewClient(sr.URLs(os.Args[4]))
	if err != nil {
		return err
	}
	created, err := registry.CreateSchema(context.Background(), topic+"-value", sr.Schema{Schema: rowSchema})
	if err != nil {
		return err
	}
	schema := avro.MustParse(rowSchema)
	var serde sr.Serde
	serde.Register(created.ID, row{}, sr.EncodeFn(func(value any) ([]byte, error) { return avro.Marshal(schema, value) }))
	for index, one := range records {
		var value row
		if err := json.Unmarshal([]byte(one.value), &value); err != nil {
			return err
		}
		records[index].value = string(serde.MustEncode(value))
	}
	return franz(bootstrap, topic, records)
}

func saramaSync(bootstrap, topic string, records []record) error {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, one := range records {
		sent := &sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(one.key), Value: sarama.StringEncoder(one.value),
		}
		if _, _, err := producer.SendMessage(sent); err != nil {
			return err
		}
	}
	return nil
}

func segmentio(bootstrap, topic string, records []record) error {
	return write(&kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: topic, BatchTimeout: 10 * time.Millisecond}, records)
}

func segmentioHash(bootstrap, topic string, records []record) error {
	return write(&kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, BatchTimeout: 10 * time.Millisecond, Balancer: &kafka.Hash{},
	}, records)
}

func write(writer *kafka.Writer, records []record) error {
	defer writer.Close()
	for _, one := range records {
		sent := kafka.Message{Key: []byte(one.key), Value: []byte(one.value)}
		if err := writer.WriteMessages(context.Background(), sent); err != nil {
			return err
		}
	}
	return nil
}
