package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/transport"
)

// declarations reads what a configuration declares.
func declarations(t *testing.T, text string) config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ipcd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Default(0, os.Getenv), path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// house is a broker and the rings that are declared to.
type house struct {
	*store
	rings *ring.Rings
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	rings, err := ring.Open(ring.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{openStore(t, dir), rings}
	t.Cleanup(func() {
		h.rings.Stop()
		h.rings.Close()
		h.Close()
	})
	return h
}

// declare applies a configuration.
func (h *house) declare(text string) (applied, refused []string) {
	h.t.Helper()
	cfg := declarations(h.t, text)
	return declare(h.t.Context(), transport.Over(h.Broker), transport.OverRings(h.rings), rootUser, cfg.Queues, cfg.Rings)
}

func (h *house) queue(name string) queue.Settings {
	h.t.Helper()
	info, err := h.GetQueue(h.t.Context(), rootUser, name)
	h.must(err)
	return info.Settings
}

func (h *house) ring(name string) ring.Settings {
	h.t.Helper()
	info, err := h.rings.Get(h.t.Context(), rootUser, name)
	h.must(err)
	return info.Settings
}

func TestDeclaredQueuesAndRingsAreMadeOnce(t *testing.T) {
	h := newHouse(t)
	const text = "queues: {/b: {lease: 1m, owner: 7, mode: 0660, dead_letter: /a}, /a: }\nrings: {/r: {capacity: 1MiB, group: 9}}\n"
	applied, refused := h.declare(text)
	if want := []string{"queues./a: made", "queues./b: made", "rings./r: made"}; !slices.Equal(applied, want) || len(refused) > 0 {
		t.Fatalf("applied %q, refused %q", applied, refused)
	}
	if b := h.queue("/b"); b.Lease.String() != "1m0s" || b.OwnerUID != 7 || b.GroupGID != rootUser.GID || b.Mode != 0o660 || b.DeadLetter != "/a" {
		t.Errorf("%+v", b)
	}
	if r := h.ring("/r"); r.Capacity != 1<<20 || r.GroupGID != 9 || r.OwnerUID != rootUser.UID {
		t.Errorf("%+v", r)
	}
	if applied, refused := h.declare(text); len(applied)+len(refused) > 0 {
		t.Errorf("again: applied %q, refused %q", applied, refused)
	}
}

func TestOnlyDeclaredSettingsOfWhatIsThereChange(t *testing.T) {
	h := newHouse(t)
	h.declare("queues: {/a: {lease: 1m, max_attempts: 3}}\nrings: {/r: {stall: 2s, retain: 1MiB}}")
	applied, refused := h.declare("queues: {/a: {lease: 2m}}\nrings: {/r: {stall: 3s, max_message: 0}}")
	if want := []string{"queues./a: lease is 2m0s, not 1m0s", "rings./r: stall is 3s, not 2s"}; !slices.Equal(applied, want) || len(refused) > 0 {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
	if a := h.queue("/a"); a.MaxAttempts != 3 {
		t.Errorf("%+v", a)
	}
	if r := h.ring("/r"); r.Retain != 1<<20 {
		t.Errorf("%+v", r)
	}
}

func TestWhatCanNotChangeIsRefusedAndTheRestApplied(t *testing.T) {
	h := newHouse(t)
	h.declare("queues: {/a: {durability: memory}}\nrings: {/r: {capacity: 1MiB, max_message: 1KiB}}")
	applied, refused := h.declare("queues: {/a: {durability: journal, lease: 2m}}\nrings: {/r: {capacity: 2MiB, max_message: 2KiB, policy: lossless, mode: 0640}}")
	if want := []string{"queues./a: lease is 2m0s, not 30s", "rings./r: mode is 0640, not 0600"}; !slices.Equal(applied, want) {
		t.Errorf("applied %q", applied)
	}
	said := strings.Join(refused, "\n")
	for _, say := range []string{"queues./a.durability: durability is memory, not journal, which can not be changed", "rings./r.capacity: capacity is 1048576, not 2097152",
		"rings./r.max_message: max_message is 1024, not 2048", "rings./r.policy: policy is overwrite, not lossless"} {
		if !strings.Contains(said, say) {
			t.Errorf("%q is not refused in %q", say, refused)
		}
	}
	if len(refused) != 4 {
		t.Errorf("refused %q", refused)
	}
}

func TestRefusalOfOneDeclarationIsNotThatOfOthers(t *testing.T) {
	h := newHouse(t)
	h.create("/b", func(s *queue.Settings) { s.DeadLetter = "/a" })
	applied, refused := h.declare("queues: {/a: {dead_letter: /b}, /c: }")
	if !slices.Equal(applied, []string{"queues./c: made"}) || len(refused) != 1 || !strings.HasPrefix(refused[0], "queues./a: dead letters would go in a circle") {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
}

func TestDeclaredBindsWaitForTheirQueues(t *testing.T) {
	h := newHouse(t)
	applied, refused := h.declare("queues: {/a: {type_names: {failed: 7}, binds: {/b: {type: 'failed,3', overflow: skip}, /c: }}, /b: , /c: }")
	if len(applied) != 4 || len(refused) != 0 || !strings.HasPrefix(applied[3], "queues./a: binds is {/b") {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
	if binds := h.queue("/a").Binds; len(binds) != 2 || !binds[0].Skip || len(binds[0].Selector.Types) != 2 || binds[1].To != "/c" || binds[1].Skip {
		t.Errorf("%+v", binds)
	}
	if applied, refused := h.declare("queues: {/a: {lease: 1m, binds: {/b: {type: '3,7', overflow: skip}, /c: }}}"); len(applied) != 1 || len(refused) != 0 {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
	if applied, refused := h.declare("queues: {/a: {binds: {}}}"); len(applied) != 1 || len(refused) != 0 || len(h.queue("/a").Binds) != 0 {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
	if applied, refused := h.declare("queues: {/a: {binds: {/nowhere: }}}"); len(applied) != 0 || len(refused) != 1 || !strings.Contains(refused[0], "no queue /nowhere") {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
}

func TestWhatIsNotDeclaredAnyMoreStays(t *testing.T) {
	h := newHouse(t)
	h.declare("queues: {/a: {lease: 1m}}")
	if applied, refused := h.declare(""); len(applied)+len(refused) > 0 || h.queue("/a").Lease.String() != "1m0s" {
		t.Errorf("applied %q, refused %q, %+v", applied, refused, h.queue("/a"))
	}
}

// others are values that are not the defaults, for keys of which they can not be told from the range.
var others = map[string]string{
	"dead_letter": "/other", "dead_letter_expired": "true", "backoff_max": "1m", "type_names": "{a: 1}", "mqueue.type_prefix": "true", "mode": "0640", "owner": "7", "group": "7",
	"overflow": "block", "durability": "memory", "mqueue.mode": "none", "capacity": "1MiB", "policy": "lossless", "retain": "2MiB", "mqueue.type": "2",
}

// needed are settings without which others are not allowed.
var needed = map[string]string{"dead_letter_expired": "dead_letter: /dead, ", "backoff_initial": "backoff_max: 1h, "}

func TestEveryKeyOfADeclarationIsApplied(t *testing.T) {
	for kind, keys := range map[string][]config.Listed{"queues": config.KeysOf("queues"), "rings": config.KeysOf("rings")} {
		for _, k := range keys {
			if k.Kind == config.Map || strings.HasPrefix(k.Path, "binds.") {
				continue
			}
			value := others[k.Path]
			if value == "" {
				value = map[config.Kind]string{config.Number: "77", config.Size: "77", config.Duration: "77ms"}[k.Kind]
			}
			with := func(value string) string {
				if group, key, nested := strings.Cut(k.Path, "."); nested {
					return fmt.Sprintf("%s: {/x: {%s: {%s: %s}}}", kind, group, key, value)
				}
				return fmt.Sprintf("%s: {/x: {%s%s: %s}}", kind, needed[k.Path], k.Path, value)
			}
			h := newHouse(t)
			h.declare(with(value))
			plain := fmt.Sprintf("%s: {/y: {%s}}", kind, needed[k.Path])
			h.declare(plain)
			same, again := true, true
			if kind == "queues" {
				same = reflect.DeepEqual(h.queue("/x"), h.queue("/y"))
			} else {
				same = h.ring("/x") == h.ring("/y")
			}
			if same {
				t.Errorf("%s.%s: %s changes nothing", kind, k.Path, value)
			}
			if k.Default == "" {
				continue
			}
			// What the table calls the default is what a queue has that says nothing.
			h.declare(strings.Replace(with(k.Default), "/x", "/z", 1))
			if kind == "queues" {
				again = reflect.DeepEqual(h.queue("/z"), h.queue("/y"))
			} else {
				again = h.ring("/z") == h.ring("/y")
			}
			if !again {
				t.Errorf("%s.%s: %s is not the default", kind, k.Path, k.Default)
			}
		}
	}
}

func TestDeclarationDoesNotAdoptWhatIsSomebodyElses(t *testing.T) {
	h := newHouse(t)
	squatter := identity.Identity{Kind: identity.Unix, UID: 40001, GID: 40001}
	_, _, err := h.CreateQueue(t.Context(), squatter, "/payroll", func(*queue.Settings) error { return nil }, false)
	h.must(err)
	applied, refused := h.declare("queues: {/payroll: {max_messages: 5}}")
	if len(applied) > 0 || len(refused) != 1 || !strings.Contains(refused[0], "belongs to uid 40001") {
		t.Errorf("applied %q, refused %q", applied, refused)
	}
	if have := h.queue("/payroll"); have.MaxMessages == 5 {
		t.Error("and yet it was changed")
	}
	if applied, refused := h.declare("queues: {/payroll: {max_messages: 5, owner: 0}}"); len(applied) != 1 || len(refused) > 0 {
		t.Errorf("with an owner: applied %q, refused %q", applied, refused)
	}
}
