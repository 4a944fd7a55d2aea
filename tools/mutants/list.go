package main

// The simulation, with so many seeds that a mutant has little chance to get by.
var simulation = []string{"./broker", "-run", "TestCrashes", "-sim.seeds=600"}

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
		file: "broker/served.go", old: "if !s.durable {\n\t\ts.q.Publish(", new: "if s.q != nil {\n\t\ts.q.Publish(",
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
		file: "broker/transact.go", old: "p.s.joined = parts[0].s", new: "p.s.joined = nil",
		tests: []string{"./broker", "-run", "TestTransactionIsWhole"},
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
}
