package ops

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport"
)

// BenchmarkScrape scrapes a broker with 10,000 queues.
func BenchmarkScrape(b *testing.B) {
	real := broker.New(broker.Options{})
	defer real.Close()
	for i := range 10_000 {
		name := fmt.Sprintf("/jobs.%05d", i)
		if _, _, err := real.CreateQueue(context.Background(), root, name, func(*queue.Settings) error { return nil }, true); err != nil {
			b.Fatal(err)
		}
		r := broker.SendRequest{Queue: name, Messages: []queue.Message{{Type: 1, Body: []byte("x")}}}
		if _, err := real.Send(context.Background(), root, r); err != nil {
			b.Fatal(err)
		}
	}
	s := New(Options{Broker: transport.Over(real), Version: "v0"})
	defer s.Stop(context.Background())

	b.ReportAllocs()
	for b.Loop() {
		if err := s.WriteMetrics(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	var text bytes.Buffer
	if err := s.WriteMetrics(&text); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(text.Len()), "text-B")
	b.ReportMetric(float64(bytes.Count(text.Bytes(), []byte("\n"))), "lines")
}

// BenchmarkCall counts calls from all processors at once.
func BenchmarkCall(b *testing.B) {
	s := New(Options{Broker: &fakeBroker{}})
	defer s.Stop(context.Background())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Call("ipcd.v1.MessageService/Send", "OK", 120*time.Microsecond)
		}
	})
}
