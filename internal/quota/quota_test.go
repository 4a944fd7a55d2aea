package quota

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

var (
	alice   = identity.User(1000)
	root    = identity.User(0)
	daemon  = identity.User(990)
	billing = identity.Principal{Kind: identity.Certificate, Name: "spiffe://example.org/billing"}
	nobody  = identity.Principal{}
)

func TestQuotaIsExactForMany(t *testing.T) {
	table := New(990, Config{Default: Limits{Streams: 100}})
	var wg sync.WaitGroup
	var taken [8]int
	for i := range taken {
		wg.Go(func() {
			for range 100 {
				if table.Take(alice, Streams, 1) == nil {
					taken[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range taken {
		sum += n
	}
	if used := table.Usage(alice).Entries[Streams].Used; sum != 100 || used != 100 {
		t.Errorf("%d were taken and %d are used, of 100", sum, used)
	}
	err := table.Take(alice, Streams, 1)
	if reason.Of(err) != reason.QuotaExceeded || !strings.Contains(err.Error(), "uid 1000 has 100 calls under way, and 1 more would pass the quota of 100") {
		t.Errorf("said %v", err)
	}
	table.Give(alice, Streams, 1)
	if err := table.Take(alice, Streams, 1); err != nil {
		t.Error(err)
	}
}

func TestWhatIsSetWinsOverConfigurationAndThatOverDefaults(t *testing.T) {
	table := New(990, Config{Default: Limits{Rings: 7}, Of: map[identity.Principal]Limits{alice: {Rings: 8}, root: {Queues: 3}}})
	limit := func(p identity.Principal, r Resource) string {
		e := table.Usage(p).Entries[r]
		return fmt.Sprint(e.Limit, " ", e.Source)
	}
	table.Set(billing, Limits{Rings: 9})
	for _, c := range []struct {
		p    identity.Principal
		r    Resource
		want string
	}{
		{nobody, Rings, "7 default"}, {alice, Rings, "8 config"}, {billing, Rings, "9 set"},
		{nobody, Queues, fmt.Sprint(Defaults()[Queues], " default")},
		{root, Queues, "3 config"}, {root, Rings, fmt.Sprint(int64(Unlimited), " exempt")}, {daemon, Rings, fmt.Sprint(int64(Unlimited), " exempt")},
	} {
		if got := limit(c.p, c.r); got != c.want {
			t.Errorf("%v, %v: %s, want %s", c.p, c.r, got, c.want)
		}
	}
	table.Add(alice, Rings, 8)
	if table.Take(alice, Rings, 1) == nil {
		t.Error("the configured limit does not hold")
	}
	table.Configure(Config{Of: map[identity.Principal]Limits{alice: {Rings: 9}}})
	if err := table.Take(alice, Rings, 1); err != nil {
		t.Error("the limit configured later does not hold:", err)
	}
	table.Configure(Config{Of: map[identity.Principal]Limits{alice: {Rings: 1}}})
	if table.Take(alice, Rings, 1) == nil {
		t.Error("beyond a lowered limit something is added")
	}
	table.Give(alice, Rings, 9)
	table.Set(billing, nil)
	if got := limit(billing, Rings); got != fmt.Sprint(Defaults()[Rings], " default") {
		t.Error("after a reset:", got)
	}
}

func TestAccountsThatHoldNothingAreForgotten(t *testing.T) {
	table := New(0, Config{})
	held := identity.User(1)
	table.Add(held, Queues, 1)
	for i := range 3 * accountsKept {
		p := identity.Principal{Kind: identity.Certificate, Name: fmt.Sprint(i)}
		if err := table.Take(p, Connections, 1); err != nil {
			t.Fatal(err)
		}
		table.Give(p, Connections, 1)
	}
	if n := len(table.accounts); n > accountsKept+1 {
		t.Errorf("%d accounts are kept", n)
	}
	if table.Usage(held).Entries[Queues].Used != 1 {
		t.Error("what is used was forgotten")
	}
}

func TestAllListsWhoUsesSomethingOrHasALimit(t *testing.T) {
	table := New(0, Config{Of: map[identity.Principal]Limits{identity.User(5): {Queues: 1}}})
	table.Add(nobody, Streams, 1)
	table.Add(billing, Streams, 1)
	table.Add(alice, Streams, 1)
	table.Add(identity.User(6), Streams, 1)
	table.Give(identity.User(6), Streams, 1)
	var whos []identity.Principal
	for _, u := range table.All() {
		whos = append(whos, u.Who)
	}
	if want := []identity.Principal{identity.User(5), alice, billing, nobody}; !reflect.DeepEqual(whos, want) {
		t.Errorf("%v, want %v", whos, want)
	}
}

func TestWhatOperatorsSetOutlivesACrash(t *testing.T) {
	seed := rand.Uint64()
	disk := vfs.NewCrash(rand.New(rand.NewPCG(seed, 0)))
	if err := disk.MkdirAll("/state"); err != nil {
		t.Fatal(err)
	}
	open := func() *Table {
		table, err := Open(disk, "/state", 0, Config{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return table
	}
	table := open()
	want := map[identity.Principal]Limits{alice: {Queues: 0, QueuedBytes: Unlimited}, billing: {Streams: 3}, nobody: {Connections: 1}}
	for p, limits := range want {
		if _, err := table.Change(p, func(l Limits) {
			for r, n := range limits {
				l[r] = n
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Change(root, func(l Limits) { l[Rings] = 1 }); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Change(root, func(l Limits) { delete(l, Rings) }); err != nil {
		t.Fatal(err)
	}
	disk = disk.Crash(rand.New(rand.NewPCG(seed, 1)))
	if got := open().settings(); !reflect.DeepEqual(got, want) {
		t.Errorf("seed %d: %v, want %v", seed, got, want)
	}
}

func TestDamagedFileOfQuotasIsRefused(t *testing.T) {
	for text, say := range map[string]string{
		`{"version":2,"quotas":[],"new":1}`:                           "newer ipcd",
		`{"version":1,"quotas":[{"uid":1,"limits":{"elephants":1}}]}`: "elephants",
		`{"version":1,"quotas":[{"uid":-1,"limits":{}}]}`:             "uid",
		`{"version":1,"quoats":[]}`:                                   "quoats",
		`{`:                                                           "unexpected EOF",
	} {
		disk := vfs.NewCrash(rand.New(rand.NewPCG(1, 2)))
		if err := disk.MkdirAll("/state"); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFileAtomic(disk, "/state/quotas.json", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(disk, "/state", 0, Config{}); err == nil || !strings.Contains(err.Error(), say) || !strings.Contains(err.Error(), "/state/quotas.json") {
			t.Errorf("%s: said %v, want %q in it", text, err, say)
		}
	}
}

func TestOperatorsCanNotBeLockedOut(t *testing.T) {
	table := New(990, Config{Of: map[identity.Principal]Limits{root: {Connections: 0, Streams: 3, Queues: 0}}})
	for _, p := range []identity.Principal{root, daemon} {
		for _, r := range []Resource{Connections, Streams} {
			_, err := table.Change(p, func(l Limits) { l[r] = 15 })
			if reason.Of(err) != reason.InvalidArgument || !strings.Contains(err.Error(), "at least 16") {
				t.Errorf("15 %s of %v: %v", r, p, err)
			}
			if err := table.Take(p, r, 16); err != nil {
				t.Errorf("%v: %v", p, err)
			}
			if _, err := table.Change(p, func(l Limits) { l[r] = 16 }); err != nil {
				t.Errorf("16 %s of %v: %v", r, p, err)
			}
			if err := table.Take(p, r, 1); err == nil {
				t.Errorf("%v has 17 %s", p, r)
			}
		}
	}
	if err := table.Take(root, Queues, 1); err == nil {
		t.Error("of queues root may have none, and has one")
	}
	if _, err := table.Change(alice, func(l Limits) { l[Streams] = 0 }); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}
