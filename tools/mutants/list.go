package main

// The simulation, with so many seeds that a mutant has little chance to get by.
var simulation = []string{"./broker", "-run", "TestCrashes", "-sim.seeds=600"}

// Histories of real clients, as many as make it very likely that one shows the mutant.
var linear = []string{"./internal/linear", "-linear.rounds=30"}

var mutants = []mutant{
	{
		name: "skip-fsync", about: "a commit writes and does not sync",
		file: "broker/journal/commit.go", old: "err := s.file.Sync()", new: "var err error",
		tests: simulation,
	},
	{
		name: "acknowledge-before-fsync", about: "who waits for a commit is answered at once",
		file: "broker/journal/commit.go",
		old:  "if Number(j.published.Load()) >= n {\n\t\treturn nil\n\t}\n\tif err", new: "if Number(j.appended.Load()) >= n {\n\t\treturn nil\n\t}\n\tif err",
		tests: []string{"./broker", "-run", "TestNothingIsTold"},
	},
	{
		name: "publish-before-commit", about: "messages are visible before they are on disk",
		file: "broker/served.go", old: "if !s.durable {\n\t\ts.showLocked(", new: "if s.q != nil {\n\t\ts.showLocked(",
		tests: []string{"./broker", "-run", "TestMessagesAreInvisible"},
	},
	{
		name: "skip-directory-sync", about: "the entry of a new segment is not made durable",
		file: "broker/journal/room.go", old: "if err = j.o.FS.SyncDir(j.o.Dir); err != nil {", new: "if err != nil {",
		tests: simulation,
	},
	{
		name: "ignore-delivery", about: "a receipt settles later deliveries too",
		file: "broker/queue/settle.go", old: "s.state == Leased && s.delivery == r.Delivery {\n\t\t\t\treturn n, nil", new: "s.state == Leased {\n\t\t\t\treturn n, nil",
		tests: []string{"./broker/queue"},
	},
	{
		name: "forget-dedup", about: "dedup ids are forgotten on restart",
		file: "broker/queue/loading.go", old: "\t\tq.finishIDs(l)\n", new: "",
		tests: []string{"./broker", "-run", "TestEverythingAboutAQueue"},
	},
	{
		name: "drop-promise", about: "frames do not say up to where the log is durable",
		file: "broker/journal/journal.go", old: "durable: Number(j.durable.Load()), meta", new: "durable: 0, meta",
		tests: []string{"./broker", "-run", "TestDamage|TestQuarantine"},
	},
	{
		name: "drop-mark", about: "no mark follows the last commit",
		file: "broker/journal/commit.go", old: "return j.err == nil && !j.committing", new: "return j.err != nil && !j.committing",
		tests: []string{"./broker/journal", "-run", "Mark"},
	},
	{
		name: "recycle-too-early", about: "a segment is given up before it is on disk that it is not needed",
		file: "broker/journal/free.go", old: "if err := j.Wait(context.Background(), n); err != nil {\n\t\treturn err\n\t}", new: "_, _ = n, context.Background",
		tests: simulation,
	},
	{
		name: "split-transaction", about: "each queue of a transaction writes a frame of its own",
		file: "broker/flow.go", old: "p.s.joined = f.parts[0].s", new: "p.s.joined = nil",
		tests: []string{"./broker", "-run", "TestTransactionIsWhole"},
	},
	{
		name: "split-copies", about: "a message and its copies are in frames of their own",
		file: "broker/flow.go", old: "p.s.joined = f.parts[0].s", new: "p.s.joined = nil",
		tests: []string{"./broker", "-run", "TestCopiesAreWhole"},
	},
	{
		name: "stale-binds", about: "a send goes by binds that have changed since it was planned",
		file: "broker/flow.go", old: "return f.version == f.b.bindsVersion.Load()", new: "return true",
		tests: []string{"./broker", "-run", "TestCopiesAddUp|TestBlockedSenderOfABoundQueue|TestPlan"},
	},
	{
		name: "copy-past-full", about: "a full destination takes a send's copies all the same",
		file: "broker/flowdecide.go", old: "\t\tif err != nil {\n\t\t\treturn f.inTheWay(p, err)\n\t\t}\n", new: "\t\tif err != nil && p.own > 0 {\n\t\t\treturn f.inTheWay(p, err)\n\t\t}\n",
		tests: []string{"./broker", "-run", "TestFullTarget"},
	},
	{
		name: "move-and-keep", about: "what is moved stays where it was, too",
		file: "broker/queue/move.go", old: "\t\tq.settle(q.settling(now, recRemove, byMove, 0, 0, \"\"), n)\n", new: "\t\t_ = n\n",
		tests: []string{"./broker", "-run", "Move"},
	},
	{
		name: "silent-tap", about: "a tap does not count what it leaves out",
		file: "broker/tap.go", old: "\t\t\tt.skipLocked()\n", new: "",
		tests: []string{"./broker", "-run", "Tap", "-timeout", "60s"},
	},
	{
		name: "immortal-temporary", about: "a temporary queue outlives the call that opened it",
		file: "broker/temporary.go", old: "func() { b.closeTemporary(s) }", new: "func() {}",
		tests: []string{"./broker", "-run", "Temporary"},
	},
	{
		name: "believe-bodies", about: "sends are not held against the queue's schema",
		file: "broker/send.go", old: "if err := s.checkBodies(r.Messages); err != nil {", new: "if err := s.checkBodies(nil); err != nil {",
		tests: []string{"./broker", "-run", "Schema|Bodies"},
	},
	{
		name: "drop-for-what-acks-free", about: "a transaction drops old messages although its acks make room",
		file: "broker/flowstore.go", old: "p.freedMessages, p.freedBytes)", new: "0, 0)",
		tests: []string{"./broker", "-run", "TestAcksOfATransaction"},
	},
	{
		name: "keep-nothing", about: "compaction forgets messages",
		file: "broker/compact.go", old: "err := c.eachStored(s, c.keep,", new: "err := c.eachStored(s, func(*served, []uint64, []int, []journal.Position) error { return nil },",
		tests: simulation,
	},
	{
		name: "deliver-before-commit", about: "a message that is consumed at once is handed over before that is on disk",
		file: "broker/receive.go", old: "return got, s.b.Await(context.WithoutCancel(ctx), ticket)", new: "_ = ticket\n\t\treturn got, nil",
		tests: []string{"./broker", "-run", "TestNothingIsTold"},
	},
	{
		name: "leases-survive-crashes", about: "after a crash leases go on",
		file: "broker/recover.go", old: "s.q.Restart(now, l.stopped, l.stoppedAt)", new: "s.q.Restart(now, true, l.stoppedAt)",
		tests: []string{"./broker", "-run", "TestAcknowledgedMessages"},
	},
	{
		name: "torn-reads", about: "a copy counts although it was overwritten meanwhile",
		file: "internal/shm/lane.go", old: "\toldest := l.oldest.Load()\n\tl.watchOldest(r, oldest)\n\tif oldest > l.cursor {\n\t\tif err", new: "\toldest := l.lastOldest\n\tl.watchOldest(r, oldest)\n\tif oldest > l.cursor {\n\t\tif err",
		tests: []string{"./internal/shm", "-run", "TestReadsAreNeverTorn", "-shm.torn=20s"},
	},
	{
		name: "late-oldest", about: "frames are overwritten before oldest says so",
		file: "internal/shm/room.go", old: "\tw.words.oldest.Store(target)\n", new: "\tdefer w.words.oldest.Store(target - w.stride)\n",
		tests: []string{"./internal/shm", "-run", "TestReadsAreNeverTorn", "-shm.torn=20s"},
	},
	{
		name: "no-second-look", about: "a consumer sleeps without looking again after it said so",
		file: "internal/shm/park.go", old: " || r.hasNew()\n", new: "\n",
		tests: []string{"./internal/shm", "-run", "TestNoWakeUpIsLost"},
	},
	{
		name: "no-wake", about: "a producer does not wake who sleeps",
		file: "internal/shm/wake.go", old: "g&1 == 1 && g != c.woken {\n\t\t\tc.woken = g\n\t\t\tfresh = true", new: "g&1 == 1 && g != c.woken {\n\t\t\tc.woken = g",
		tests: []string{"./internal/shm", "-run", "TestNoWakeUpIsLost"},
	},
	{
		name: "no-producer-wake", about: "a consumer does not wake a producer that waits for room",
		file: "internal/shm/lane.go", old: "g&1 == 1 && g != l.woken {", new: "g&1 == 1 && g == l.woken+1 {",
		tests: []string{"./internal/shm", "-run", "TestNoWakeUpIsLost"},
	},
	{
		name: "no-gate", about: "a lossless producer does not wait",
		file: "internal/shm/room.go", old: "if w.config.Lossless && (", new: "if false && (",
		tests: []string{"./internal/shm", "-run", "Lossless"},
	},
	{
		name: "believe-lengths", about: "a frame may be longer than what was published",
		file: "internal/shm/lane.go", old: "case size > l.limit-l.cursor || size > toEnd:", new: "case size > l.peer.Capacity:",
		tests: []string{"./internal/shm", "-run", "TestEveryKindOfNonsense"},
	},
	{
		name: "believe-lengths-of-views", about: "a borrowed view may be longer than what was published",
		file: "internal/shm/view.go", old: "size > min(l.limit-at, l.peer.Capacity-at&l.mask)", new: "size > l.peer.Capacity",
		tests: []string{"./internal/shm", "-run", "TestEveryKindOfNonsense"},
	},
	{
		name: "share-a-line", about: "a consumer goes on showing its place in a lane whose slot was given to another",
		file: "internal/shm/lane.go", old: "l.stored == l.cursor || l.replaced {", new: "l.stored == l.cursor {",
		tests: []string{"./internal/shm", "-run", "TestSlotOfALane"},
	},
	{
		name: "mode-for-anybody", about: "who is no local user has what the mode gives others",
		file: "internal/access/access.go", old: "uid, ok := id.User()\n\tif !ok {\n\t\treturn 0\n\t}", new: "uid, _ := id.User()",
		tests: []string{"./internal/access"},
	},
	{
		name: "quota-of-nobody", about: "what is queued is charged to nobody",
		file: "broker/charge.go", old: "return s.takeBytesLocked(bytes)\n", new: "return nil\n",
		tests: []string{"./broker", "-run", "TestQueuedBytes"},
	},
	{
		name: "any-certificate", about: "clients may show certificates of any authority",
		file: "transport/rpc/tls.go", old: "tls.RequireAndVerifyClientCert", new: "tls.RequireAnyClientCert",
		tests: []string{"./transport/rpc", "-run", "Certificate|TLS|Stranger"},
	},
	{
		name: "watchdog-without-look", about: "the service manager is told that the daemon lives, whatever a look finds",
		file: "cmd/ipcd/probe.go", old: `return fmt.Errorf("the daemon does not move: a lock or the disk is stuck: %w", ctx.Err())`, new: "_ = fmt.Sprint()\n\t\treturn nil",
		tests: []string{"./cmd/ipcd", "-run", "TestWhatIsStuck"},
	},
	{
		name: "return-last", about: "a message that comes back is put behind those that were sent later",
		file: "broker/queue/class.go", old: "case s.seq > q.slots.at(c.tail).seq:", new: "case s.seq > 0:",
		tests: linear,
	},
	{
		name: "end-leases-early", about: "a lease ends before the time that its holder was told",
		file: "broker/queue/states.go", old: "return at.Mono + int64(millis)*int64(time.Millisecond)", new: "return at.Mono + int64(millis)*int64(time.Millisecond)/2",
		tests: linear,
	},
	{
		name: "lose-attempts", about: "a nack does not count",
		file: "broker/queue/apply.go", old: "s.fail(r.cause)\n\t\t\tq.leave(n)\n\t\t\tif r.Due", new: "q.leave(n)\n\t\t\tif r.Due",
		tests: linear,
	},
}
