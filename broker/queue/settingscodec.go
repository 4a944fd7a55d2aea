package queue

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// RecordBytes is how many bytes the settings take in a record.
func (s *Settings) RecordBytes() int { return len(s.append(nil)) }

// append encodes settings. New fields go to the end, under a new recordVersion.
func (s *Settings) append(b []byte) []byte {
	for _, v := range [...]int64{
		s.MaxMessages, s.MaxBytes, int64(s.MaxMessageSize), int64(s.Lease), int64(s.MaxAttempts),
		int64(s.Overflow), int64(s.Durability), int64(s.BackoffInitial), int64(s.BackoffMax), int64(s.DedupWindow), s.MaxDedupIDs,
		int64(s.Mode), int64(s.OwnerUID), int64(s.GroupGID),
		int64(s.Kernel.Mode), int64(s.Kernel.MaxMessages), int64(s.Kernel.MessageSize), s.Kernel.Type,
		int64(s.Kernel.OutSelector.Kind), s.Kernel.OutSelector.Type,
	} {
		b = binary.AppendVarint(b, v)
	}
	b = appendBool(b, s.DeadLetterExpired)
	b = appendBool(b, s.Kernel.TypePrefix)
	b = appendString(b, s.DeadLetter)
	b = binary.AppendUvarint(b, uint64(len(s.Kernel.OutSelector.Types)))
	for _, t := range s.Kernel.OutSelector.Types {
		b = binary.AppendVarint(b, t)
	}
	names := make([]string, 0, len(s.TypeNames))
	for name := range s.TypeNames {
		names = append(names, name)
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendString(b, name)
		b = binary.AppendVarint(b, s.TypeNames[name])
	}
	b = binary.AppendUvarint(b, uint64(len(s.Binds)))
	for i := range s.Binds {
		bind := &s.Binds[i]
		b = appendString(b, bind.To)
		b = appendBool(b, bind.Skip)
		b = appendSelector(b, &bind.Selector)
	}
	return b
}

func appendSelector(b []byte, s *Selector) []byte {
	b = binary.AppendVarint(b, int64(s.Kind))
	b = binary.AppendVarint(b, s.Type)
	b = binary.AppendUvarint(b, uint64(len(s.Types)))
	for _, t := range s.Types {
		b = binary.AppendVarint(b, t)
	}
	return b
}

func (d *decoder) selector() (s Selector) {
	s.Kind, s.Type = SelectorKind(d.varint()), d.varint()
	for n := d.count(limits.SelectorTypes); n > 0 && d.err == nil; n-- {
		s.Types = append(s.Types, d.varint())
	}
	return s
}

func (d *decoder) settings() *Settings {
	s := &Settings{
		MaxMessages: d.varint(), MaxBytes: d.varint(), MaxMessageSize: int(d.varint()), Lease: time.Duration(d.varint()), MaxAttempts: int(d.varint()),
		Overflow: Overflow(d.varint()), Durability: Durability(d.varint()),
		BackoffInitial: time.Duration(d.varint()), BackoffMax: time.Duration(d.varint()), DedupWindow: time.Duration(d.varint()), MaxDedupIDs: d.varint(),
		Mode: uint32(d.varint()), OwnerUID: uint32(d.varint()), GroupGID: uint32(d.varint()),
	}
	k := &s.Kernel
	k.Mode, k.MaxMessages, k.MessageSize, k.Type = KernelMode(d.varint()), int(d.varint()), int(d.varint()), d.varint()
	k.OutSelector.Kind, k.OutSelector.Type = SelectorKind(d.varint()), d.varint()
	s.DeadLetterExpired = d.byte() != 0
	k.TypePrefix = d.byte() != 0
	s.DeadLetter = d.string()
	for n := d.count(limits.SelectorTypes); n > 0 && d.err == nil; n-- {
		k.OutSelector.Types = append(k.OutSelector.Types, d.varint())
	}
	for n := d.count(limits.TypeNames); n > 0 && d.err == nil; n-- {
		if s.TypeNames == nil {
			s.TypeNames = map[string]int64{}
		}
		name := d.string()
		s.TypeNames[name] = d.varint()
	}
	if d.version >= 2 {
		for n := d.count(limits.Binds); n > 0 && d.err == nil; n-- {
			s.Binds = append(s.Binds, Bind{To: d.string(), Skip: d.byte() != 0, Selector: d.selector()})
		}
	}
	if d.err == nil {
		if err := s.Check(); err != nil {
			d.fail(err)
		}
	}
	return s
}
