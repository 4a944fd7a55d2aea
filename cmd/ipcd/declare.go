package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport"
)

// declare makes the queues and rings of the configuration that are missing, and changes those settings of the others
// that are declared and differ. id is the daemon's own identity: what is made belongs to it unless the declaration
// says otherwise. applied tells what was made and changed, refused what could not be, and why.
func declare(ctx context.Context, b transport.Broker, r transport.Rings, id identity.Identity, queues []config.QueueDeclaration, rings []config.RingDeclaration) (applied, refused []string) {
	var bound []*target[queue.Settings]
	for i := range queues {
		d := &queues[i]
		t := target[queue.Settings]{
			path: "queues." + d.Name, taken: reason.QueueExists, settings: queueSettings(d),
			create: func(edit func(*queue.Settings) error) error {
				_, _, err := b.CreateQueue(ctx, id, d.Name, broker.Edit(edit), true)
				return err
			},
			get: func() (queue.Settings, error) {
				info, err := b.GetQueue(ctx, id, d.Name)
				return info.Settings, err
			},
			update: func(edit func(*queue.Settings) error) (queue.Settings, error) {
				info, err := b.UpdateQueue(ctx, id, d.Name, broker.Edit(edit))
				return info.Settings, err
			},
			check: (*queue.Settings).Check, diff: (*queue.Settings).Diff,
			owner: func(s *queue.Settings) uint32 { return s.OwnerUID }, anybodys: d.OwnerUID != nil,
		}
		did, not := t.declare(id.UID)
		applied, refused = append(applied, did...), append(refused, not...)
		if d.Binds == nil || len(not) > 0 {
			continue
		}
		bound = append(bound, &t)
		t.settings = nil
		binds := bindsOf(d)
		named(&t.settings, "binds", &binds, func(s *queue.Settings) *[]queue.Bind { return &s.Binds })
		t.create = func(func(*queue.Settings) error) error { return reason.New(reason.QueueExists, "it was just made") }
	}
	for _, t := range bound { // all queues that they name may be there now
		did, not := t.declare(id.UID)
		applied, refused = append(applied, did...), append(refused, not...)
	}
	for i := range rings {
		d := &rings[i]
		t := target[ring.Settings]{
			path: "rings." + d.Name, taken: reason.RingExists, settings: ringSettings(d),
			create: func(edit func(*ring.Settings) error) error {
				_, _, err := r.Create(ctx, id, d.Name, ring.Edit(edit), true)
				return err
			},
			get: func() (ring.Settings, error) {
				info, err := r.Get(ctx, id, d.Name)
				return info.Settings, err
			},
			update: func(edit func(*ring.Settings) error) (ring.Settings, error) {
				info, err := r.Update(ctx, id, d.Name, ring.Edit(edit))
				return info.Settings, err
			},
			check: (*ring.Settings).Check, diff: (*ring.Settings).Diff,
			owner: func(s *ring.Settings) uint32 { return s.OwnerUID }, anybodys: d.OwnerUID != nil,
		}
		did, not := t.declare(id.UID)
		applied, refused = append(applied, did...), append(refused, not...)
	}
	return applied, refused
}

// declared is a setting that a declaration names.
type declared[S any] struct {
	key   string
	fixed bool // it can not be changed later
	apply func(*S)
}

// target is a queue or a ring, with its settings S, that is to be as it is declared.
type target[S any] struct {
	path     string        // in the configuration
	taken    reason.Reason // there is one of this name already
	settings []declared[S]
	create   func(edit func(*S) error) error
	get      func() (S, error)
	update   func(edit func(*S) error) (S, error)
	check    func(*S) error
	diff     func(s, other *S) string
	owner    func(*S) uint32
	anybodys bool // the declaration names the owner: it may be whose it will
}

// declare makes or changes the target on behalf of uid, the daemon's own.
func (t *target[S]) declare(uid uint32) (applied, refused []string) {
	refuse := func(err error) ([]string, []string) { return applied, append(refused, t.path+": "+why(err)) }
	err := t.create(edit(t.settings))
	if err == nil {
		return []string{t.path + ": made"}, nil
	}
	if reason.Of(err) != t.taken {
		return refuse(err)
	}
	have, err := t.get()
	if err != nil {
		return refuse(err)
	}
	if owner := t.owner(&have); !t.anybodys && owner != 0 && owner != uid { // who took the name first would have what is meant for another
		return refuse(fmt.Errorf("there is one already, and it belongs to uid %d, who may do with it what he likes: declare its owner, or remove it", owner))
	}
	changes, refused := t.changes(have)
	want := have
	_ = edit(changes)(&want)
	_ = t.check(&want) // gives it its normal form; what is wrong with it the update says
	if t.diff(&want, &have) == "" {
		return nil, refused
	}
	now, err := t.update(edit(changes))
	if err != nil {
		return refuse(err)
	}
	return []string{t.path + ": " + t.diff(&now, &have)}, refused
}

// changes returns the settings that may be applied to what is there, and what is refused.
func (t *target[S]) changes(have S) (changes []declared[S], refused []string) {
	for _, s := range t.settings {
		if s.fixed {
			other := have
			s.apply(&other)
			_ = t.check(&other) // gives it what its default is in this place
			if diff := t.diff(&have, &other); diff != "" {
				refused = append(refused, fmt.Sprintf("%s.%s: %s, which can not be changed: declare another one, or take this key out", t.path, s.key, diff))
			}
			continue
		}
		changes = append(changes, s)
	}
	return changes, refused
}

func edit[S any](settings []declared[S]) func(*S) error {
	return func(to *S) error {
		for _, s := range settings {
			s.apply(to)
		}
		return nil
	}
}

// why is an error without the name of what it is about.
func why(err error) string {
	var e *reason.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

// named adds a setting if the declaration names it.
func named[S, T any](settings *[]declared[S], key string, from *T, at func(*S) *T) {
	if from != nil {
		*settings = append(*settings, declared[S]{key: key, apply: func(s *S) { *at(s) = *from }})
	}
}

// word adds a setting that is one of some words, if the declaration names it. Its values are those of the words, in
// order; a word that is none of them is left to the configuration, which refuses it.
func word[S any, T ~uint8](settings *[]declared[S], key string, from *string, words func(T) string, last T, at func(*S) *T) {
	if from == nil {
		return
	}
	for v := T(0); v <= last; v++ {
		if words(v) == *from {
			named(settings, key, &v, at)
		}
	}
}

// queueSettings returns the settings that a queue's declaration names.
func queueSettings(d *config.QueueDeclaration) (all []declared[queue.Settings]) {
	type settings = queue.Settings
	named(&all, "max_messages", d.MaxMessages, func(s *settings) *int64 { return &s.MaxMessages })
	named(&all, "max_bytes", d.MaxBytes, func(s *settings) *int64 { return &s.MaxBytes })
	named(&all, "max_message_size", d.MaxMessageSize, func(s *settings) *int { return &s.MaxMessageSize })
	named(&all, "lease", d.Lease, func(s *settings) *time.Duration { return &s.Lease })
	named(&all, "max_attempts", d.MaxAttempts, func(s *settings) *int { return &s.MaxAttempts })
	named(&all, "dead_letter", d.DeadLetter, func(s *settings) *string { return &s.DeadLetter })
	named(&all, "dead_letter_expired", d.DeadLetterExpired, func(s *settings) *bool { return &s.DeadLetterExpired })
	word(&all, "overflow", d.Overflow, queue.Overflow.String, queue.DropOldest, func(s *settings) *queue.Overflow { return &s.Overflow })
	word(&all, "durability", d.Durability, queue.Durability.String, queue.Memory, func(s *settings) *queue.Durability { return &s.Durability })
	named(&all, "backoff_initial", d.BackoffInitial, func(s *settings) *time.Duration { return &s.BackoffInitial })
	named(&all, "backoff_max", d.BackoffMax, func(s *settings) *time.Duration { return &s.BackoffMax })
	named(&all, "dedup_window", d.DedupWindow, func(s *settings) *time.Duration { return &s.DedupWindow })
	named(&all, "max_dedup_ids", d.MaxDedupIDs, func(s *settings) *int64 { return &s.MaxDedupIDs })
	if d.TypeNames != nil {
		named(&all, "type_names", &d.TypeNames, func(s *settings) *map[string]int64 { return &s.TypeNames })
	}
	word(&all, "mqueue.mode", d.Kernel.Mode, queue.KernelMode.String, queue.KernelNone, func(s *settings) *queue.KernelMode { return &s.Kernel.Mode })
	named(&all, "mqueue.max_messages", d.Kernel.MaxMessages, func(s *settings) *int { return &s.Kernel.MaxMessages })
	named(&all, "mqueue.message_size", d.Kernel.MessageSize, func(s *settings) *int { return &s.Kernel.MessageSize })
	named(&all, "mqueue.type", d.Kernel.Type, func(s *settings) *int64 { return &s.Kernel.Type })
	named(&all, "mqueue.type_prefix", d.Kernel.TypePrefix, func(s *settings) *bool { return &s.Kernel.TypePrefix })
	named(&all, "mode", d.Mode, func(s *settings) *uint32 { return &s.Mode })
	named(&all, "owner", d.OwnerUID, func(s *settings) *uint32 { return &s.OwnerUID })
	named(&all, "group", d.GroupGID, func(s *settings) *uint32 { return &s.GroupGID })
	return fix(all, "durability")
}

// bindsOf returns the binds that a queue's declaration names.
func bindsOf(d *config.QueueDeclaration) []queue.Bind {
	all := make([]queue.Bind, len(d.Binds))
	for i, b := range d.Binds {
		all[i] = queue.Bind{To: b.To, Skip: b.Overflow != nil && *b.Overflow == "skip"}
		all[i].Selector = selectorOf(&b.Selector)
	}
	return all
}

// selectorOf returns the selector that a declaration names.
func selectorOf(d *config.SelectorDeclaration) queue.Selector {
	switch {
	case len(d.Types) == 0:
		return queue.Selector{}
	case d.Word == "upto":
		return queue.Selector{Kind: queue.LowestUpTo, Type: d.Types[0]}
	case d.Word == "not":
		return queue.Selector{Kind: queue.TypeIsNot, Type: d.Types[0]}
	case len(d.Types) == 1:
		return queue.Selector{Kind: queue.TypeIs, Type: d.Types[0]}
	}
	return queue.Selector{Kind: queue.TypeIn, Types: d.Types}
}

// ringSettings returns the settings that a ring's declaration names.
func ringSettings(d *config.RingDeclaration) (all []declared[ring.Settings]) {
	type settings = ring.Settings
	named(&all, "capacity", d.Capacity, func(s *settings) *int64 { return &s.Capacity })
	named(&all, "max_message", d.MaxMessage, func(s *settings) *int64 { return &s.MaxMessage })
	named(&all, "policy", (*ring.Policy)(d.Policy), func(s *settings) *ring.Policy { return &s.Policy })
	named(&all, "retain", d.Retain, func(s *settings) *int64 { return &s.Retain })
	named(&all, "stall", d.Stall, func(s *settings) *time.Duration { return &s.Stall })
	named(&all, "mode", d.Mode, func(s *settings) *uint32 { return &s.Mode })
	named(&all, "owner", d.OwnerUID, func(s *settings) *uint32 { return &s.OwnerUID })
	named(&all, "group", d.GroupGID, func(s *settings) *uint32 { return &s.GroupGID })
	return fix(all, "capacity", "max_message", "policy")
}

// fix marks settings that can not be changed later.
func fix[S any](settings []declared[S], keys ...string) []declared[S] {
	for i := range settings {
		for _, key := range keys {
			settings[i].fixed = settings[i].fixed || settings[i].key == key
		}
	}
	return settings
}
