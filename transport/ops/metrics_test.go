package ops

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/vfs"
	"github.com/ipcd/ipcd/transport"
)

// sent is a queue that has counted so many sends.
func sent(id uint64, name string, n uint64) broker.Info {
	return broker.Info{ID: id, Name: name, Stats: broker.Stats{Stats: queue.Stats{Sent: n, Ready: int64(n)}}}
}

func TestMetricsShowWhatABrokerHolds(t *testing.T) {
	b := broker.New(broker.Options{})
	defer b.Close()
	if _, _, err := b.CreateQueue(t.Context(), root, "/jobs", func(*queue.Settings) error { return nil }, true); err != nil {
		t.Fatal(err)
	}
	r := broker.SendRequest{Queue: "/jobs", Messages: []queue.Message{{Type: 1, Body: []byte("a")}, {Type: 1, Body: []byte("b")}}}
	if _, err := b.Send(t.Context(), root, r); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(t.Context(), root, broker.ReceiveRequest{Queue: "/jobs"}); err != nil {
		t.Fatal(err)
	}
	m := scrape(t, newServer(t, Options{Broker: transport.Over(b)}))
	m.want(t, 2, "ipcd_queue_sent_total", "queue", "/jobs")
	m.want(t, 1, "ipcd_queue_delivered_total", "queue", "/jobs")
	m.want(t, 1, "ipcd_queue_messages", "queue", "/jobs", "state", "ready")
	m.want(t, 1, "ipcd_queue_messages", "queue", "/jobs", "state", "leased")
	m.want(t, 2, "ipcd_queue_bytes", "queue", "/jobs")
	m.want(t, 1, "ipcd_queues")
	if m["ipcd_journal_segments"] != nil {
		t.Error("there is no journal, and yet it has metrics")
	}
}

func TestMetricsShowHowTheJournalFares(t *testing.T) {
	b, err := broker.Open(broker.Options{Journal: &broker.JournalOptions{FS: vfs.OS{}, Dir: t.TempDir(), SegmentBytes: limits.SegmentBytesMin}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := newServer(t, Options{Broker: transport.Over(b)})
	before := scrape(t, s)
	if _, _, err := b.CreateQueue(t.Context(), root, "/jobs", func(*queue.Settings) error { return nil }, true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Send(t.Context(), root, broker.SendRequest{Queue: "/jobs", Messages: []queue.Message{{Type: 1, Body: make([]byte, 8<<10)}}}); err != nil {
		t.Fatal(err)
	}
	after := scrape(t, s)
	for _, name := range []string{"ipcd_journal_commits_total", "ipcd_journal_written_bytes_total", "ipcd_journal_sync_duration_seconds"} {
		if after.value(t, name) <= before.value(t, name) {
			t.Errorf("%s did not grow with what was written: %v", name, after.value(t, name))
		}
	}
	for _, name := range []string{"ipcd_journal_segments", "ipcd_journal_disk_bytes", "ipcd_journal_used_bytes", "ipcd_journal_live_bytes",
		"ipcd_journal_sync_longest_seconds", "ipcd_message_memory_bytes"} {
		if after.value(t, name) <= 0 {
			t.Errorf("%s is %v", name, after.value(t, name))
		}
	}
	if n := len(after.find("ipcd_journal_sync_duration_seconds").GetHistogram().Bucket); n < 10 {
		t.Errorf("%d buckets", n)
	}
}

func TestOnlySoManyQueuesHaveSeries(t *testing.T) {
	b := &fakeBroker{}
	s := newServer(t, Options{Broker: b})
	old := int64(1) // sent in 1970
	for i := range uint64(1500) {
		q := sent(2000-i, fmt.Sprintf("/q%04d", i), 2)
		q.Stats.Bytes, q.Stats.OldestReady = 3, old
		b.queues = append(b.queues, q)
	}
	b.queues[0].Stats.OldestReady = time.Now().UnixNano()
	m := scrape(t, s)
	if n := len(m["ipcd_queue_sent_total"].Metric); n != limits.MetricsQueues+1 {
		t.Errorf("%d series of a counter", n)
	}
	m.want(t, 1500, "ipcd_queues")
	m.want(t, 500, "ipcd_queues_without_series")
	m.want(t, 1000, "ipcd_queue_sent_total", "queue", other)
	m.want(t, 1500, "ipcd_queue_bytes", "queue", other)
	m.want(t, 3000, "ipcd_queues_sent_total")
	m.want(t, 4500, "ipcd_queues_bytes")
	if age := m.value(t, "ipcd_queue_oldest_ready_age_seconds", "queue", other); age > 2*float64(time.Now().Unix()) {
		t.Errorf("the age of several queues is %v: not the largest of them", age)
	}
	// Ids rise with the age of a queue, and these are the last ones that were made.
	if m.find("ipcd_queue_sent_total", "queue", "/q0000") != nil || m.find("ipcd_queue_sent_total", "queue", "/q1499") == nil {
		t.Error("it is not the queues that were made first which have series of their own")
	}
}

func TestSumsDoNotFallWhenQueuesGo(t *testing.T) {
	b := &fakeBroker{}
	s := newServer(t, Options{Broker: b})
	var full []broker.Info
	for i := range uint64(limits.MetricsQueues) {
		full = append(full, sent(i+1, fmt.Sprintf("/q%04d", i), 1))
	}
	b.queues = append(full, sent(5000, "/a", 10), sent(5001, "/b", 20))
	scrape(t, s)
	b.queues = append(full[1:], sent(5000, "/a", 11)) // one with series of its own is gone, and one without
	m := scrape(t, s)
	m.want(t, 1031, "ipcd_queues_sent_total")
	m.want(t, 30, "ipcd_queue_sent_total", "queue", other)
	m.want(t, 11, "ipcd_queue_sent_total", "queue", "/a")
	m.want(t, 0, "ipcd_queue_messages", "queue", other, "state", "ready")
	b.queues = append(full[1:], sent(5000, "/a", 4)) // its counters began anew
	scrape(t, s).want(t, 1035, "ipcd_queues_sent_total")
	if n := len(s.metrics.queues.grown.seen); n != limits.MetricsQueues {
		t.Errorf("%d queues are remembered, and %d are there", n, limits.MetricsQueues)
	}
}

func TestSumsBeginWithTheDaemon(t *testing.T) {
	b := &fakeBroker{queues: []broker.Info{sent(1, "/old", 1000), sent(2, "/older", 5000)}}
	s := newServer(t, Options{Broker: b})
	b.queues = []broker.Info{sent(1, "/old", 1001), sent(3, "/new", 7)}
	m := scrape(t, s)
	m.want(t, 8, "ipcd_queues_sent_total")
	m.want(t, 1001, "ipcd_queue_sent_total", "queue", "/old")
}

func TestDoorsHaveSeriesWhereThereAreDoors(t *testing.T) {
	with, without := sent(1, "/with", 0), sent(2, "/without", 0)
	with.Doors = []broker.DoorStatus{{Direction: "out", Open: true, Passed: 7, Skipped: 2, Current: 3}}
	m := scrape(t, newServer(t, Options{Broker: &fakeBroker{queues: []broker.Info{with, without}}}))
	m.want(t, 7, "ipcd_queue_door_passed_total", "queue", "/with", "direction", "out")
	m.want(t, 2, "ipcd_queue_door_skipped_total", "queue", "/with", "direction", "out")
	m.want(t, 3, "ipcd_queues_door_messages", "direction", "out")
	m.want(t, 0, "ipcd_queues_door_open", "direction", "in")
	if n := len(m["ipcd_queue_door_open"].Metric); n != 1 {
		t.Errorf("%d series of doors, of one door", n)
	}
}

func TestDamagedAndPausedQueuesShow(t *testing.T) {
	q := sent(1, "/jobs", 0)
	q.Paused = true
	b := &fakeBroker{queues: []broker.Info{q, sent(2, "/other", 0)}, storage: broker.Storage{Damaged: []string{"/jobs"}}}
	m := scrape(t, newServer(t, Options{Broker: b}))
	m.want(t, 1, "ipcd_queue_damaged", "queue", "/jobs")
	m.want(t, 0, "ipcd_queue_damaged", "queue", "/other")
	m.want(t, 1, "ipcd_queues_paused")
}

// No such queue can be made; if it could, the text would still be one.
func TestLabelsAreEscaped(t *testing.T) {
	name := "/a\"b\\c\nd{}\xff,"
	m := scrape(t, newServer(t, Options{Broker: &fakeBroker{queues: []broker.Info{sent(1, name, 5)}}}))
	m.want(t, 5, "ipcd_queue_sent_total", "queue", strings.ToValidUTF8(name, "\uFFFD"))
}

func TestAgeIsNeverNegative(t *testing.T) {
	q := sent(1, "/jobs", 1)
	q.Stats.OldestReady = time.Now().Add(time.Hour).UnixNano() // the clock was set back
	m := scrape(t, newServer(t, Options{Broker: &fakeBroker{queues: []broker.Info{q}}}))
	m.want(t, 0, "ipcd_queue_oldest_ready_age_seconds", "queue", "/jobs")
}

func TestJournalsSyncTimesAreAHistogram(t *testing.T) {
	b := &fakeBroker{storage: broker.Storage{Durable: true, Commits: 9, SyncNanos: 3e9, SyncMaxNanos: 2e9, Full: true,
		SyncTimes: []broker.SyncTime{{UpTo: time.Millisecond, Syncs: 4}, {UpTo: time.Second, Syncs: 2}, {UpTo: math.MaxInt64, Syncs: 1}}}}
	m := scrape(t, newServer(t, Options{Broker: b}))
	h := m.find("ipcd_journal_sync_duration_seconds").GetHistogram()
	if h.GetSampleCount() != 7 || h.GetSampleSum() != 3 || len(h.Bucket) != 3 {
		t.Fatalf("%v", h)
	}
	for i, want := range []uint64{4, 6, 7} {
		if h.Bucket[i].GetCumulativeCount() != want {
			t.Errorf("bucket %v", h.Bucket[i])
		}
	}
	m.want(t, 9, "ipcd_journal_commits_total")
	m.want(t, 1, "ipcd_journal_full")
	m.want(t, 2, "ipcd_journal_sync_longest_seconds")
}

func TestRingsKeepWhatMembersCountedThatLeft(t *testing.T) {
	now := time.Now().Add(limits.RingAdoptWindow + time.Second)
	r := ring.Info{ID: 1, Name: "/ticks", Bytes: 8192,
		Lanes:     []ring.LaneInfo{{ID: 7, Joined: now, Sequence: 100, BlockedTime: time.Second, Blocked: true}, {ID: 8, Joined: now, Sequence: 5}, {ID: 9, Sequence: 1, Unreadable: true}},
		Consumers: []ring.ConsumerInfo{{ID: 7, Joined: now, Received: 90, Lost: 3, Lag: 10}, {ID: 10, Joined: now, Lag: 4, Backstops: 2}}}
	rings := &fakeRings{rings: []ring.Info{r}}
	s := newServer(t, Options{Broker: &fakeBroker{}, Rings: rings})
	m := scrape(t, s)
	m.want(t, 105, "ipcd_ring_published_total", "ring", "/ticks")
	m.want(t, 90, "ipcd_ring_received_total", "ring", "/ticks")
	m.want(t, 3, "ipcd_ring_lost_total", "ring", "/ticks")
	m.want(t, 1, "ipcd_ring_blocked_seconds_total", "ring", "/ticks")
	m.want(t, 2, "ipcd_ring_consumer_backstops_total", "ring", "/ticks")
	m.want(t, 1, "ipcd_ring_blocked_producers", "ring", "/ticks")
	m.want(t, 10, "ipcd_ring_lag_messages", "ring", "/ticks")
	m.want(t, 3, "ipcd_ring_lanes", "ring", "/ticks")
	m.want(t, 1<<30, "ipcd_rings_memory_limit_bytes")

	r.Lanes, r.Consumers = []ring.LaneInfo{{ID: 8, Joined: now, Sequence: 6}}, nil
	rings.rings = []ring.Info{r}
	m = scrape(t, s)
	m.want(t, 106, "ipcd_ring_published_total", "ring", "/ticks")
	m.want(t, 90, "ipcd_ring_received_total", "ring", "/ticks")
	m.want(t, 0, "ipcd_ring_lag_messages", "ring", "/ticks")

	rings.rings = nil
	if scrape(t, s); len(s.metrics.counts.rings) != 0 || len(s.metrics.counts.members.seen) != 0 {
		t.Error("rings that are gone are remembered")
	}
}

func TestMembersOfAnEarlierRunBeginWhereTheyAre(t *testing.T) {
	lane := ring.LaneInfo{ID: 7, Sequence: 1000, Joined: time.Now()}
	rings := &fakeRings{rings: []ring.Info{{ID: 1, Name: "/ticks", Lanes: []ring.LaneInfo{lane}}}}
	s := newServer(t, Options{Broker: &fakeBroker{}, Rings: rings})
	scrape(t, s).want(t, 0, "ipcd_ring_published_total", "ring", "/ticks")
	rings.rings[0].Lanes[0].Sequence = 1010
	scrape(t, s).want(t, 10, "ipcd_ring_published_total", "ring", "/ticks")
}

func TestOnlySoManyRingsHaveSeries(t *testing.T) {
	rings := &fakeRings{}
	now := time.Now().Add(limits.RingAdoptWindow + time.Second)
	for i := range uint64(300) {
		rings.rings = append(rings.rings, ring.Info{ID: i + 1, Name: fmt.Sprintf("/r%03d", i), Lanes: []ring.LaneInfo{{ID: i, Joined: now, Sequence: 2}},
			Consumers: []ring.ConsumerInfo{{ID: i, Lag: i}}})
	}
	m := scrape(t, newServer(t, Options{Broker: &fakeBroker{}, Rings: rings}))
	if n := len(m["ipcd_ring_published_total"].Metric); n != limits.MetricsRings+1 {
		t.Errorf("%d series of a counter", n)
	}
	m.want(t, 44, "ipcd_rings_without_series")
	m.want(t, 88, "ipcd_ring_published_total", "ring", other)
	m.want(t, 299, "ipcd_ring_lag_messages", "ring", other)
}

func TestQuotasOfTheFullestShow(t *testing.T) {
	table := quota.New(0, quota.Config{Default: quota.Limits{quota.Queues: 1000}})
	for uid := range uint32(150) {
		table.Add(identity.User(uid+1), quota.Queues, int64(uid+1))
	}
	table.Add(identity.User(0), quota.Queues, 1<<40) // without limit
	table.Add(identity.Principal{Kind: identity.Certificate, Name: "spiffe://a/\xff"}, quota.Streams, 1020)
	table.Add(identity.Principal{}, quota.Receivers, 1020)
	m := scrape(t, newServer(t, Options{Broker: &fakeBroker{}, Quotas: table}))
	if n := len(m["ipcd_quota_used"].Metric); n != principals*len(quota.Resources()) {
		t.Errorf("%d series", n)
	}
	m.want(t, 153, "ipcd_quota_principals")
	m.want(t, 150, "ipcd_quota_used", "principal", "uid:150", "resource", "queues")
	m.want(t, 1000, "ipcd_quota_limit", "principal", "uid:150", "resource", "queues")
	m.want(t, 1020, "ipcd_quota_used", "principal", "certificate:spiffe://a/\uFFFD", "resource", "streams")
	m.want(t, 1020, "ipcd_quota_used", "principal", "anonymous", "resource", "receivers")
	if m.find("ipcd_quota_used", "principal", "uid:1", "resource", "queues") != nil {
		t.Error("uid 1, which uses least, has series")
	}
}

func TestWhoHasNoLimitHasAnInfiniteOne(t *testing.T) {
	table := quota.New(0, quota.Config{})
	table.Add(identity.User(0), quota.Queues, 5)
	m := scrape(t, newServer(t, Options{Broker: &fakeBroker{}, Quotas: table}))
	m.want(t, math.Inf(1), "ipcd_quota_limit", "principal", "uid:0", "resource", "queues")
}

func TestDenialsAreCounted(t *testing.T) {
	c := access.New(access.Policy{}, nil)
	_ = c.CheckAdmin(identity.Identity{}, "do that")
	scrape(t, newServer(t, Options{Broker: &fakeBroker{}, Access: c})).want(t, 1, "ipcd_access_denied_total")
}

func TestReadinessShows(t *testing.T) {
	var err error
	s := newServer(t, Options{Broker: &fakeBroker{}, Ready: func() error { return err }})
	scrape(t, s).want(t, 1, "ipcd_ready")
	err = errors.New("recovering")
	scrape(t, s).want(t, 0, "ipcd_ready")
}

func TestStrangersMakeNoSeriesOfMethods(t *testing.T) {
	s := newServer(t, Options{Broker: &fakeBroker{}})
	for i := range 10_000 {
		s.Call(fmt.Sprintf("ipcd.v1.MessageService/Send%d", i), fmt.Sprintf("Code(%d)", i), time.Second)
	}
	s.Call("ipcd.v1.MessageService/Send", "OK", time.Millisecond)
	s.Call("/ipcd.v1.MessageService/Send", "OK", time.Millisecond)
	s.Call("ipcd.v1.MessageService/Send", "NotFound", time.Millisecond)
	m := scrape(t, s)
	if n := len(m["ipcd_calls_total"].Metric); n != 3 {
		t.Errorf("%d series of calls", n)
	}
	if n := len(m["ipcd_call_duration_seconds"].Metric); n != 2 {
		t.Errorf("%d series of durations", n)
	}
	m.want(t, 10_000, "ipcd_calls_total", "code", "Unknown", "method", "unknown")
	m.want(t, 2, "ipcd_calls_total", "code", "OK", "method", "ipcd.v1.MessageService/Send")
	m.want(t, 1, "ipcd_calls_total", "code", "NotFound", "method", "ipcd.v1.MessageService/Send")
	m.want(t, 3, "ipcd_call_duration_seconds", "method", "ipcd.v1.MessageService/Send")
}

func TestScrapeThatFailsIsCounted(t *testing.T) {
	b := &fakeBroker{list: func(context.Context, identity.Identity) ([]broker.Info, error) {
		return nil, errors.New("no list today")
	}}
	s := newServer(t, Options{Broker: b})
	if err := s.WriteMetrics(nil); err == nil || !strings.Contains(err.Error(), "no list today") {
		t.Errorf("%v", err)
	}
	b.list = func(_ context.Context, id identity.Identity) ([]broker.Info, error) {
		if !id.IsRoot() {
			t.Errorf("the list is of what %v sees", id)
		}
		return nil, nil
	}
	m := scrape(t, s)
	m.want(t, 1, "ipcd_scrape_failures_total")
	m.want(t, 2, "ipcd_scrapes_total")
}
