//go:build linux

package scale

import (
	"context"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

const (
	queues      = 10_000
	connections = 10_000
	receivers   = 1000
	idleTime    = 10 * time.Second
)

// idle reports what the daemon uses of a processor while nobody asks anything of it.
func (d *daemon) idle(b *testing.B, unit string) {
	time.Sleep(2 * time.Second) // what was begun comes to rest
	used, woken := d.processor(b), d.sleeps(b)
	time.Sleep(idleTime)
	b.ReportMetric(float64((d.processor(b)-used).Microseconds())/1000, unit+"-cpu-ms/10s")
	b.ReportMetric(d.sleeps(b)-woken, unit+"-wakeups/10s")
}

// used is the time that programs which this one started and waited for have been on processors.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkQueues is what ten thousand queues in which nothing happens cost, and how long it takes to list them.
func BenchmarkQueues(b *testing.B) {
	for b.Loop() {
		d := start(b)
		c := d.dial(b)
		if _, err := c.Info(b.Context()); err != nil {
			b.Fatal(err)
		}
		d.idle(b, "empty")
		before := d.resident(b)
		create(b, c, queues)
		b.ReportMetric((d.resident(b)-before)/queues, "B/queue")
		b.ReportMetric(median(11, func() {
			n := 0
			for _, err := range c.Queues(b.Context(), "") {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != queues {
				b.Fatal(n, "queues are listed")
			}
		}), "client-list-ms")
		for _, form := range []string{"table", "json", "name"} {
			before := used(b) + d.processor(b)
			b.ReportMetric(median(11, func() {
				out, err := exec.Command(filepath.Join(bin, "ipcctl"), "--address", d.socket, "ls", "-o", form).Output()
				if err != nil || len(out) < queues*10 {
					b.Fatal(err, len(out))
				}
			}), "ls-"+form+"-ms")
			b.ReportMetric(float64((used(b)+d.processor(b)-before).Milliseconds())/11, "ls-"+form+"-cpu-ms")
		}
		d.idle(b, "idle")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkConnections is what ten thousand connections without a call cost.
func BenchmarkConnections(b *testing.B) {
	for b.Loop() {
		d := start(b)
		c := d.dial(b)
		if _, err := c.Info(b.Context()); err != nil {
			b.Fatal(err)
		}
		before, quiet := d.resident(b), roundTrip(b, c)
		var open []net.Conn
		began := time.Now()
		for range connections {
			open = append(open, connect(b, d.socket))
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/connections, "us/connect")
		b.ReportMetric((d.resident(b)-before)/connections, "B/connection")
		b.ReportMetric(roundTrip(b, c)/quiet, "send-receive-ratio")
		used := d.processor(b)
		time.Sleep(5 * time.Second) // less than until the daemon looks whether the peers live, which costs something for each
		b.ReportMetric(float64((d.processor(b)-used).Microseconds())/1000, "idle-cpu-ms/5s")
		for _, conn := range open {
			_ = conn.Close()
		}
	}
	b.ReportMetric(0, "ns/op")
}

// connect makes a connection as a gRPC client does (RFC 9113, section 3.4), and leaves it idle.
func connect(b *testing.B, socket string) net.Conn {
	const settings, ack = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x00\x04\x01\x00\x00\x00\x00"
	conn, err := net.Dial("unix", socket)
	if err == nil {
		_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+settings+ack)
	}
	if err == nil { // the daemon's settings
		_, err = io.ReadFull(conn, make([]byte, len(settings)))
	}
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// roundTrip is the median time of a send and a receive, in us.
func roundTrip(b *testing.B, c *client.Client) float64 {
	b.Helper()
	name := "/scale.roundtrip"
	if _, err := c.CreateQueue(b.Context(), name, client.QueueSettings{Durability: client.DurabilityMemory, Mqueue: client.KernelQueue{Mode: client.KernelNone}}); err != nil {
		b.Fatal(err)
	}
	q := c.Queue(name)
	return 1000 * median(1001, func() { exchange(b, q, 1) })
}

// exchange sends a message and receives it again.
func exchange(b *testing.B, q *client.Queue, typ int64) {
	if _, err := q.Send(b.Context(), client.Message{Type: typ}); err != nil {
		b.Fatal(err)
	}
	got, err := q.Receive(b.Context(), 1, client.ReceiveOptions{Selector: client.Type(typ), AtOnce: true})
	if err != nil || len(got) != 1 {
		b.Fatal(err, len(got))
	}
}

// BenchmarkReceivers is what a thousand waiting receivers cost, and what a send costs that concerns none of them: how often
// the daemon's threads are woken for one send and receive, with them and without. Half of them wait at the same queue for
// other types, half at other queues.
func BenchmarkReceivers(b *testing.B) {
	for b.Loop() {
		d := start(b)
		c := d.dial(b)
		create(b, c, receivers/2+1)
		q := c.Queue(queueName(0))
		exchange(b, q, 1)
		const n = 2000
		measure := func() (woken, took float64) {
			var all []time.Duration
			before := d.sleeps(b)
			for range n {
				began := time.Now()
				exchange(b, q, 1)
				all = append(all, time.Since(began))
			}
			slices.Sort(all)
			return (d.sleeps(b) - before) / n, float64(all[n/2].Nanoseconds())
		}
		quietWoken, quietTook := measure()
		before := d.resident(b)
		ctx, cancel := context.WithCancel(b.Context())
		var waiting sync.WaitGroup
		const perConnection = 100
		for i := range receivers {
			if i%perConnection == 0 {
				c = d.dial(b)
			}
			at, sel := c.Queue(queueName(0)), client.Type(int64(i+2))
			if i%2 == 1 {
				at, sel = c.Queue(queueName(i/2+1)), client.Selector{}
			}
			waiting.Go(func() {
				_, _ = at.Receive(ctx, 1, client.ReceiveOptions{Selector: sel, Wait: client.WaitForever})
			})
		}
		for d.waiting(b) < receivers {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric((d.resident(b)-before)/receivers, "B/receiver")
		woken, took := measure()
		b.ReportMetric(woken, "wakeups/message")
		// One message for one of them wakes that one.
		if _, err := q.Send(ctx, client.Message{Type: 2}); err != nil {
			b.Fatal(err)
		}
		for d.waiting(b) >= receivers {
			time.Sleep(time.Millisecond)
		}
		left := d.waiting(b)
		b.ReportMetric(float64(receivers-left), "ended-by-one-send")
		cancel()
		waiting.Wait()
		for d.waiting(b) > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		// Without them, before and after: what else the machine does meets both.
		againWoken, againTook := measure()
		b.ReportMetric((quietWoken+againWoken)/2, "quiet-wakeups/message")
		b.ReportMetric(2*woken/(quietWoken+againWoken), "wakeups-ratio")
		b.ReportMetric(2*took/(quietTook+againTook), "time-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// waiting is how many receivers the daemon says wait.
func (d *daemon) waiting(b *testing.B) (n int) {
	c, err := client.Dial(d.socket)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for q, err := range c.Queues(b.Context(), "") {
		if err != nil {
			b.Fatal(err)
		}
		n += q.Stats.Receivers
	}
	return n
}
