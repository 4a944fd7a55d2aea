package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
)

var root = identity.Identity{Kind: identity.Unix}

// fill creates /q and stores n messages of so many bytes in it, in batches.
func fill(b *testing.B, br *broker.Broker, n, bytes, batch int) {
	b.Helper()
	_, _, err := br.CreateQueue(b.Context(), root, "/q", func(s *queue.Settings) error {
		s.MaxMessages, s.MaxBytes, s.Kernel.Mode = 1e9, 1<<40, queue.KernelNone
		return nil
	}, false)
	if err != nil {
		b.Fatal(err)
	}
	messages := make([]queue.Message, batch)
	for i := range messages {
		messages[i] = queue.Message{Type: 1, Body: make([]byte, bytes)}
	}
	var last broker.Ticket
	for sent := 0; sent < n; sent += batch {
		_, ticket, err := br.Submit(b.Context(), root, broker.SendRequest{Queue: "/q", Messages: messages})
		if err != nil {
			b.Fatal(err)
		}
		if sent/batch%64 == 63 { // a window, as clients have
			if err := br.Await(b.Context(), last); err != nil {
				b.Fatal(err)
			}
		}
		last = ticket
	}
	if err := br.Await(b.Context(), last); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRecovery opens a journal with a million queued messages of 128 bytes, sent 64 at a time. The
// files are in the page cache.
func BenchmarkRecovery(b *testing.B) {
	const messages = 1_000_000
	dir := b.TempDir()
	br := openBroker(b, dir)
	fill(b, br, messages, bodyBytes, perFrame)
	br.Close()
	b.ResetTimer()
	for range b.N {
		br := openBroker(b, dir)
		b.StopTimer()
		if n := br.Totals().Messages; n < messages {
			b.Fatalf("%d messages came back", n)
		}
		br.Close()
		b.StartTimer()
	}
	perSecond(b, b.N*messages)
}

// BenchmarkEmptyStart opens a journal that does not exist yet.
func BenchmarkEmptyStart(b *testing.B) {
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		b.StartTimer()
		br := openBroker(b, dir)
		b.StopTimer()
		br.Close()
		b.StartTimer()
	}
}

// BenchmarkDeepBacklog queues 10 million messages of 1 KiB (IPCD_DEEP=1; it takes 12 GB of disk), and
// then consumes them in order. It reports the memory and the disk that this takes, and the highest ratio of
// disk to live data on the way, four segments of 32 MiB aside.
func BenchmarkDeepBacklog(b *testing.B) {
	if os.Getenv("IPCD_DEEP") == "" {
		b.Skip("set IPCD_DEEP=1: it takes 12 GB of disk and some minutes")
	}
	const bytes = 1024
	messages := 10_000_000
	if n := os.Getenv("IPCD_DEEP_MESSAGES"); n != "" {
		if _, err := fmt.Sscan(n, &messages); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		dir := b.TempDir()
		br := openBroker(b, dir)
		fill(b, br, messages, bytes, perFrame)
		b.ReportMetric(float64(resident(b))/1e6, "RSS-MB")
		b.ReportMetric(float64(diskUsed(b, dir))/float64(messages*bytes), "disk/live")
		worst := 0.0
		for left := messages; left > 0; {
			got, err := br.Receive(b.Context(), root, broker.ReceiveRequest{Queue: "/q", Max: 1000})
			if err != nil || len(got) == 0 {
				b.Fatal(len(got), err)
			}
			acks := make([]broker.Settlement, len(got))
			for i := range got {
				acks[i].Receipt = got[i].Receipt
			}
			if out, err := br.Settle(b.Context(), root, acks); err != nil || len(out.Failures) > 0 {
				b.Fatal(err, out.Failures)
			}
			before := left
			left -= len(got)
			if live := left * bytes; before/500_000 != left/500_000 && live > 1<<30 {
				worst = max(worst, float64(diskUsed(b, dir)-4*32<<20)/float64(live))
			}
		}
		b.ReportMetric(worst, "disk/live-draining")
		b.ReportMetric(float64(resident(b))/1e6, "RSS-MB-drained")
		br.Close()
	}
	perSecond(b, b.N*messages)
}

// resident is the process's memory, in bytes (VmRSS of proc_pid_status(5)).
func resident(b *testing.B) (bytes int64) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil {
				b.Fatal(err)
			}
		}
	}
	return bytes << 10
}

// diskUsed is the size of the journal's files, in bytes.
func diskUsed(b *testing.B, dir string) (total int64) {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "journal", "*.seg"))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			total += info.Size()
		}
	}
	return total
}
