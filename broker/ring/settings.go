package ring

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// Policy is what a producer does when a consumer is slow.
type Policy string

const (
	Overwrite Policy = "overwrite" // go on; the consumer learns what it lost
	Lossless  Policy = "lossless"  // wait for those consumers that asked for it
)

// RetainDefault as Settings.Retain, before they are checked, stands for one capacity.
const RetainDefault = -1

// Settings is what was declared for a ring. Capacity, MaxMessage and Policy never change.
type Settings struct {
	Capacity   int64 // bytes of a lane's data, a power of two
	MaxMessage int64 // bytes of a payload, at most Capacity/4 - 32; 0 before the check: that, or 16 MiB if less
	Policy     Policy
	OwnerUID   uint32
	GroupGID   uint32
	Mode       uint32        // permission bits: read to consume, write to produce, both to hold producers back
	Retain     int64         // bytes of data of ended lanes that are kept, the oldest goes first
	Stall      time.Duration // how long a consumer may hold a producer up; for lanes that join from now on
}

// Edit changes settings in place, before they are checked.
type Edit func(*Settings) error

// Default returns the settings of a ring for which nothing was declared, owned by uid and gid.
func Default(uid, gid uint32) Settings {
	return Settings{
		Capacity: limits.RingCapacityDefault,
		Policy:   Overwrite,
		OwnerUID: uid,
		GroupGID: gid,
		Mode:     limits.ModeDefault,
		Retain:   RetainDefault,
		Stall:    limits.RingStallDefault,
	}
}

// Check gives what was left open its default, and says what is wrong with the settings, if anything.
func (s *Settings) Check() error {
	if s.Capacity < limits.RingCapacityMin || s.Capacity > limits.RingCapacityMax || bits.OnesCount64(uint64(s.Capacity)) != 1 {
		return reason.Invalid("settings.capacity_bytes", "capacity %d: it must be a power of two from %d to %d bytes", s.Capacity, limits.RingCapacityMin, limits.RingCapacityMax)
	}
	if s.OwnerUID == limits.NoID || s.GroupGID == limits.NoID {
		return reason.Invalid("settings.owner_uid", "owner_uid %d, group_gid %d: %d stands for no user and no group (chown(2)); name another", s.OwnerUID, s.GroupGID, uint32(limits.NoID))
	}
	largest := s.Capacity/4 - shm.FrameHeader
	if s.MaxMessage == 0 {
		s.MaxMessage = min(largest, limits.MessageSizeMax)
	}
	if s.MaxMessage < 1 || s.MaxMessage > largest {
		return reason.Invalid("settings.max_message_bytes", "max_message %d: with a capacity of %d it must be 1 to %d bytes: a quarter of the capacity, less a header of %d",
			s.MaxMessage, s.Capacity, largest, shm.FrameHeader)
	}
	if s.Policy != Overwrite && s.Policy != Lossless {
		return reason.Invalid("settings.policy", "policy %.20q: it must be %s or %s", s.Policy, Overwrite, Lossless)
	}
	if s.Retain == RetainDefault {
		s.Retain = s.Capacity
	}
	if s.Retain < 0 || s.Retain > limits.RingRetainMax {
		return reason.Invalid("settings.retain_bytes", "retain %d: it must be 0 to %d bytes", s.Retain, int64(limits.RingRetainMax))
	}
	if s.Stall < limits.RingStallMin || s.Stall > limits.RingStallMax {
		return reason.Invalid("settings.stall", "stall %v: it must be %v to %v", s.Stall, limits.RingStallMin, limits.RingStallMax)
	}
	if s.Mode > 0o777 {
		return reason.Invalid("settings.mode", "mode %#o: it must be permission bits, 0 to 0777", s.Mode)
	}
	return nil
}

// Diff says in words how other differs from s: "" if it does not.
func (s *Settings) Diff(other *Settings) string {
	var out []string
	add := func(name string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s is %v, not %v", name, a, b))
		}
	}
	add("capacity", s.Capacity, other.Capacity)
	add("max_message", s.MaxMessage, other.MaxMessage)
	add("policy", s.Policy, other.Policy)
	add("retain", s.Retain, other.Retain)
	add("stall", s.Stall, other.Stall)
	add("mode", fmt.Sprintf("%#o", s.Mode), fmt.Sprintf("%#o", other.Mode))
	add("owner_uid", s.OwnerUID, other.OwnerUID)
	add("group_gid", s.GroupGID, other.GroupGID)
	return strings.Join(out, "; ")
}

// geometry is that of the ring's lanes.
func (s *Settings) geometry() shm.Geometry {
	return shm.Geometry{Capacity: uint64(s.Capacity), MaxFrame: uint32(shm.FrameSize(int(s.MaxMessage)))}
}

// checkName says what is wrong with a ring's name, if anything. Rings and queues have the same rule, which is
// the queues', but not the same names: a ring and a queue may be called alike.
func checkName(name string) error {
	if queue.CheckName(name) == nil {
		return nil
	}
	return reason.Invalid("name", "ring name %.220q: it must be a slash and then 1 to %d of A-Z a-z 0-9 . _ -, not starting with a dot", name, limits.NameLength)
}
