//go:build linux

package ring

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"
)

// deadline is a context that ends when a test has taken too long.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (f *fake) producer(t *testing.T) *Producer {
	t.Helper()
	p, err := NewProducer(deadline(t), "/ring", ProducerOptions{Attach: f.path, Logger: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (f *fake) consumer(t *testing.T, o ConsumerOptions) *Consumer {
	t.Helper()
	o.Attach, o.Logger = f.path, logTo(t)
	c, err := NewConsumer(deadline(t), "/ring", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// logTo logs to the test. Handles are closed before it ends.
func logTo(t *testing.T) func(string) { return func(line string) { t.Log(line) } }

// number is a payload that says which message it is.
func number(n int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

func publish(t *testing.T, p *Producer, from, to int) {
	t.Helper()
	ctx := deadline(t)
	for n := from; n < to; n++ {
		if err := p.PublishContext(ctx, 1, number(n)); err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
	}
}

// expect reads messages and compares their numbers.
func expect(t *testing.T, c *Consumer, from, to int) {
	t.Helper()
	ctx := deadline(t)
	for n := from; n < to; n++ {
		m, err := c.Next(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
		if got := int(binary.LittleEndian.Uint64(m.Payload)); got != n || m.Lost != 0 {
			t.Fatalf("message %d came, with %d lost; want %d and 0", got, m.Lost, n)
		}
	}
}

// inherited are the files that were open before the first test.
var inherited = func() []string {
	fds, _ := os.ReadDir("/proc/self/fd") // no proc: nothing is
	var open []string
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			open = append(open, to)
		}
	}
	return open
}()

// expectNothingMapped fails if there is shared memory left that is mapped or open, or a socket.
func expectNothingMapped(t testing.TB) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "memfd:") {
			t.Errorf("still mapped: %s", line)
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && (strings.Contains(to, "memfd:") || strings.HasPrefix(to, "socket:") && !slices.Contains(inherited, to)) {
			t.Errorf("still open: %s %s", fd.Name(), to)
		}
	}
}
