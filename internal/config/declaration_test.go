package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestDeclarationsHaveWhatTheyName(t *testing.T) {
	c := loaded(t, `
queues:
  /empty:
  /jobs:
    max_messages: 5
    max_bytes: 1MiB
    max_message_size: 0
    lease: 1m
    max_attempts: 3
    dead_letter: /jobs.dead
    dead_letter_expired: true
    overflow: drop-oldest
    durability: memory
    backoff_initial: 1s
    backoff_max: 10s
    dedup_window: 0s
    max_dedup_ids: 0
    type_names: {created: 7, failed: 8}
    binds:
      /audit:
      /empty: {type: "failed,4", overflow: skip}
      /other: {type: "not:created"}
    mqueue: {mode: both, max_messages: 4, message_size: 1KiB, type: 9, type_prefix: true}
    mode: "0660"
    owner: alice
    group: 7
rings:
  /ticks: {capacity: 1MiB, max_message: 1KiB, policy: lossless, retain: 0, stall: 50ms, mode: 640, owner: 0, group: staff}
  /empty: {}
`)
	n := func(i int) *int { return &i }
	n64 := func(i int64) *int64 { return &i }
	u := func(i uint32) *uint32 { return &i }
	s := func(s string) *string { return &s }
	d := func(d time.Duration) *time.Duration { return &d }
	yes := true
	queues := []QueueDeclaration{{Name: "/empty"}, {
		Name: "/jobs", MaxMessages: n64(5), MaxBytes: n64(1 << 20), MaxMessageSize: n(0), Lease: d(time.Minute), MaxAttempts: n(3),
		DeadLetter: s("/jobs.dead"), DeadLetterExpired: &yes, Overflow: s("drop-oldest"), Durability: s("memory"),
		BackoffInitial: d(time.Second), BackoffMax: d(10 * time.Second), DedupWindow: d(0), MaxDedupIDs: n64(0),
		TypeNames: map[string]int64{"created": 7, "failed": 8},
		Binds: []BindDeclaration{{To: "/audit"}, {To: "/empty", Type: s("failed,4"), Selector: SelectorDeclaration{Types: []int64{8, 4}}, Overflow: s("skip")},
			{To: "/other", Type: s("not:created"), Selector: SelectorDeclaration{Word: "not", Types: []int64{7}}}},
		Kernel: KernelDeclaration{Mode: s("both"), MaxMessages: n(4), MessageSize: n(1024), Type: n64(9), TypePrefix: &yes},
		Mode:   u(0o660), OwnerUID: u(1000), GroupGID: u(7),
	}}
	if !reflect.DeepEqual(c.Queues, queues) {
		t.Errorf("%+v", c.Queues)
	}
	rings := []RingDeclaration{{Name: "/empty"}, {Name: "/ticks", Capacity: n64(1 << 20), MaxMessage: n64(1024), Policy: s("lossless"), Retain: n64(0),
		Stall: d(50 * time.Millisecond), Mode: u(0o640), OwnerUID: u(0), GroupGID: u(50)}}
	if !reflect.DeepEqual(c.Rings, rings) {
		t.Errorf("%+v", c.Rings)
	}
}

func TestMistakesInDeclarationsNameTheLineAndTheKey(t *testing.T) {
	for text, say := range map[string][]string{
		"queues:\n  jobs: {}":                                                         {":2: queues.jobs: ", "a slash and then 1 to 200"},
		"queues:\n  /a/b: {}":                                                         {":2: queues./a/b: ", "a slash and then"},
		"queues:\n  /.a: {}":                                                          {":2: queues./.a: ", "not starting with a dot"},
		"queues:\n  /" + strings.Repeat("a", 201) + ": {}":                            {":2: queues./aaa", "1 to 200"},
		"rings:\n  \"/a\\n\": {}":                                                     {":2: rings.\"/a\\n\": ", "a slash and then"},
		"queues:\n  /a:\n    max_messages: 0":                                         {":3: queues./a.max_messages: ", "0: it must be 1 to 1000000000"},
		"queues:\n  /a:\n    max_messages: 1e3":                                       {":3: queues./a.max_messages: ", "no whole number"},
		"queues:\n  /a:\n    max_messages: 99999999999999999999":                      {":3: queues./a.max_messages: ", "1 to 1000000000"},
		"queues:\n  /a:\n    lease: 1ms":                                              {":3: queues./a.lease: ", "10ms to 168h"},
		"queues:\n  /a:\n    dead_letter: dead":                                       {":3: queues./a.dead_letter: ", "a slash and then"},
		"queues:\n  /a:\n    dead_letter: /a":                                         {":2: queues./a.dead_letter: ", "circle"},
		"queues:\n  /a:\n    dead_letter_expired: true":                               {":2: queues./a.dead_letter_expired: ", "needs a dead_letter"},
		"queues:\n  /a:\n    overflow: drop_oldest":                                   {":3: queues./a.overflow: ", "did you mean drop-oldest?"},
		"queues:\n  /a:\n    durability: disk":                                        {":3: queues./a.durability: ", "journal or memory"},
		"queues:\n  /a:\n    backoff_initial: 5s":                                     {":2: queues./a.backoff_max: ", "0s is less than backoff_initial, 5s"},
		"queues:\n  /a:\n    mode: 0999":                                              {":3: queues./a.mode: ", "octal"},
		"queues:\n  /a:\n    mode: 01777":                                             {":3: queues./a.mode: ", "octal"},
		"queues:\n  /a:\n    mode: rw-rw----":                                         {":3: queues./a.mode: ", "0660"},
		"queues:\n  /a:\n    owner: ghost":                                            {":3: queues./a.owner: ", "\"ghost\""},
		"queues:\n  /a:\n    group: ghosts":                                           {":3: queues./a.group: ", "\"ghosts\""},
		"queues:\n  /a:\n    type_names:\n      1a: 7":                                {":4: queues./a.type_names.1a: ", "a letter or _"},
		"queues:\n  /a:\n    type_names:\n      a: 0":                                 {":4: queues./a.type_names.a: ", "at least 1"},
		"queues:\n  /a:\n    type_names: {a: 7, b: 7}":                                {":3: queues./a.type_names.b: ", "a stands for 7 too"},
		"queues:\n  /a:\n    binds:\n      /a:":                                       {":4: queues./a.binds./a: ", "itself"},
		"queues:\n  /a:\n    binds:\n      b:":                                        {":4: queues./a.binds.b: ", "slash"},
		"queues:\n  /a: {binds: {/b: {type: 0}}}":                                     {":2: queues./a.binds./b.type", "from 1 on"},
		"queues:\n  /a: {type_names: {made: 7}, binds: {/b: {type: mode}}}":           {":2: queues./a.binds./b.type", "made"},
		"queues:\n  /a: {binds: {/b: {overflow: drop}}}":                              {":2: queues./a.binds./b.overflow: ", "refuse"},
		"queues:\n  /a: {binds: {/b: }}\n  /b: {binds: {/a: }}":                       {":2: queues./a.binds./b: ", "/a -> /b -> /a"},
		"queues:\n  /a: {binds: {/b: }}\n  /b: {durability: memory}":                  {":2: queues./a.binds./b: ", "kept in memory"},
		"queues:\n  /a:\n    type_names: [a]":                                         {":3: queues./a.type_names: ", "keys with values"},
		"queues:\n  /a:\n    mqueue: {mode: inout}":                                   {":3: queues./a.mqueue.mode: ", "auto, in, out, both or none"},
		"queues:\n  /a:\n    mqueue: {type: -1}":                                      {":3: queues./a.mqueue.type: ", "at least 1"},
		"queues:\n  /a: {dead_letter: /b}\n  /b: {dead_letter: /a}":                   {":2: queues./a.dead_letter: ", "would go in a circle: /a -> /b -> /a"},
		"queues:\n  /x: {dead_letter: /a}\n  /a: {dead_letter: /a}":                   {"queues./a.dead_letter: ", "circle"},
		"queues:\n  /a: {dead_letter: /b}\n  /b: {durability: memory}":                {":2: queues./a.dead_letter: ", "kept in memory"},
		"rings:\n  /a:\n    capacity: 100000":                                         {":2: rings./a.capacity: ", "power of two, such as 64KiB or 128KiB"},
		"rings:\n  /a:\n    capacity: 2GiB":                                           {":3: rings./a.capacity: ", "64KiB to 1GiB"},
		"rings:\n  /a:\n    capacity: 64KiB\n    max_message: 16KiB":                  {":2: rings./a.max_message: ", "0 to 16352 bytes"},
		"rings:\n  /a:\n    policy: losles":                                           {":3: rings./a.policy: ", "did you mean lossless?"},
		"rings:\n  /a:\n    stall: 1m":                                                {":3: rings./a.stall: ", "10ms to 10s"},
		"queues:\n  /a: {}\n  /b: {}\n  /a: {lease: 1s}":                              {":4: queues./a: ", "line 2 too"},
		"queues: {/a: 7}":                                                             {":1: queues./a: ", "keys with values"},
		"rings: {" + strings.Repeat("/a: 0,", 1024) + "/a: 0}":                        {":1: rings: ", "1025 entries: there may be 1024"},
		"queues: {/a: {type_names: {" + strings.Repeat("a: 1,", entriesMax+1) + "}}}": {":1: queues./a.type_names: ", "there may be 4096"},
		"queues:\n  /a: {dead_letter: '', dead_letter_expired: true, lease: }":        {":2: queues./a.dead_letter_expired: "},
	} {
		expectProblem(t, text, say)
	}
}

// queueSettings are those settings of a queue for which there are ranges, by key.
func queueSettings(key string, s *queue.Settings) any {
	return map[string]any{
		"max_messages": &s.MaxMessages, "max_bytes": &s.MaxBytes, "max_message_size": &s.MaxMessageSize, "lease": &s.Lease, "max_attempts": &s.MaxAttempts,
		"backoff_initial": &s.BackoffInitial, "backoff_max": &s.BackoffMax, "dedup_window": &s.DedupWindow, "max_dedup_ids": &s.MaxDedupIDs,
		"mqueue.max_messages": &s.Kernel.MaxMessages, "mqueue.message_size": &s.Kernel.MessageSize, "mqueue.type": &s.Kernel.Type,
	}[key]
}

func TestRangesOfQueuesAreThoseOfTheBroker(t *testing.T) {
	for _, k := range listed(nil, queueKeys, "") {
		if k.Shape != One || k.Kind != Number && k.Kind != Size && k.Kind != Duration {
			continue
		}
		for _, n := range []int64{k.least - 1, k.least, k.most, k.most + 1} {
			s := queue.Default(0, 0)
			if k.Name == "backoff_initial" {
				s.BackoffMax = 1 << 62
			}
			to := queueSettings(k.Path, &s)
			if to == nil {
				t.Fatalf("%s is not known here", k.Path)
			}
			if k.most+1 < 0 && n == k.most+1 {
				continue // no number at all
			}
			store(to, "", n)
			if k.Name == "backoff_initial" && n <= k.most {
				s.BackoffMax = time.Duration(k.most)
			}
			if wrong, refused := k.wrong(n, "it"), s.Check(); (wrong == "") != (refused == nil) {
				t.Errorf("%s %d: the configuration says %q, the broker %v", k.Path, n, wrong, refused)
			}
		}
	}
}

func TestRangesOfRingsAreTheirOwn(t *testing.T) {
	if ringFrameHeader != shm.FrameHeader {
		t.Errorf("%d bytes before a message; in memory %d", ringFrameHeader, shm.FrameHeader)
	}
	for _, k := range ringKeys {
		if k.Kind != Size && k.Kind != Duration {
			continue
		}
		for _, n := range []int64{k.least - 1, k.least, k.most, k.most + 1} {
			s := ring.Default(0, 0)
			s.Capacity = 1 << 30
			to := map[string]any{"capacity": &s.Capacity, "max_message": &s.MaxMessage, "retain": &s.Retain, "stall": &s.Stall}[k.Name]
			if k.Name == "retain" && n == ring.RetainDefault {
				continue // a word of its own there
			}
			store(to, "", n)
			if wrong, refused := k.wrong(n, "it"), s.Check(); (wrong == "") != (refused == nil) {
				t.Errorf("%s %d: the configuration says %q, the ring %v", k.Name, n, wrong, refused)
			}
		}
	}
}

func TestNamesAreThoseOfQueues(t *testing.T) {
	for _, name := range []string{"/a", "/a.b-c_D9", "/-", "a", "/", "/.a", "/a/b", "/ä", "/a ", "/" + strings.Repeat("x", 200), "/" + strings.Repeat("x", 201)} {
		if good, refused := goodName(name), queue.CheckName(name); good != (refused == nil) {
			t.Errorf("%q: good %v here, %v there", name, good, refused)
		}
	}
	for _, name := range []string{"a", "_", "a.b-c", "1", "-", "", "a b", strings.Repeat("x", 64), strings.Repeat("x", 65)} {
		s := queue.Default(0, 0)
		s.TypeNames = map[string]int64{name: 1}
		if good, refused := typeNamePattern.MatchString(name), s.Check(); good != (refused == nil) {
			t.Errorf("type name %q: good %v here, %v there", name, good, refused)
		}
	}
}
