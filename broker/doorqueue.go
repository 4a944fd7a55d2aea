package broker

import (
	"context"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// openDoor makes the queue's kernel doors, through which nothing flows yet.
func (s *served) openDoor(settings *queue.Settings) error {
	if s.b.doors == nil || settings.Kernel.Mode == queue.KernelNone {
		return nil
	}
	door, err := s.b.doors.Open(DoorSpec{
		Queue: s.name, ID: s.id, Kernel: settings.Kernel,
		MaxMessageSize: doorBody(settings), // a larger one never fits
		Mode:           settings.Mode, OwnerUID: settings.OwnerUID, GroupGID: settings.GroupGID, Lane: (*lane)(s),
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.door = door
	s.mu.Unlock()
	return nil
}

func (s *served) startDoor() {
	s.mu.Lock()
	door := s.door
	s.mu.Unlock()
	if door != nil {
		door.Start()
	}
}

// changeDoor lets the doors follow new settings. They are made anew only where they must be: programs
// that have a kernel queue open would go on with the old one. If the new ones cannot be had the old
// ones are opened again.
func (s *served) changeDoor(old, settings *queue.Settings) error {
	s.mu.Lock()
	door := s.door
	if sameDoor(old, settings) && (door != nil || s.b.doors == nil || settings.Kernel.Mode == queue.KernelNone) {
		s.mu.Unlock()
		if door != nil && (old.Mode != settings.Mode || old.OwnerUID != settings.OwnerUID || old.GroupGID != settings.GroupGID) {
			door.Protect(settings.Mode, settings.OwnerUID, settings.GroupGID)
		}
		return nil
	}
	s.door = nil // there may be none, after a change that failed
	s.mu.Unlock()
	if door != nil {
		door.Close(true)
	}
	err := s.openDoor(settings)
	if err != nil && s.openDoor(old) == nil {
		s.startDoor()
	}
	return err
}

// sameDoor reports whether the kernel objects for both settings are the same but for their permissions.
func sameDoor(old, settings *queue.Settings) bool {
	a, b := old.Kernel, settings.Kernel
	return a.Mode == b.Mode && a.MaxMessages == b.MaxMessages && a.MessageSize == b.MessageSize && a.Type == b.Type &&
		a.TypePrefix == b.TypePrefix && a.OutSelector.String() == b.OutSelector.String() &&
		(a.MessageSize != 0 || doorBody(old) == doorBody(settings))
}

// doorBody is the largest body that the queue takes from a door.
func doorBody(s *queue.Settings) int { return int(min(int64(s.MaxMessageSize), s.MaxBytes)) }

// lane is a queue as its doors use it: a DoorQueue.
type lane served

// Reserve waits for room, in line with blocked senders, and in the queues that must have copies.
func (l *lane) Reserve(ctx context.Context, messages int, bytes int64) (Reservation, error) {
	s := (*served)(l)
	for {
		r, err := s.reserve(ctx, messages, bytes)
		if err != nil {
			return nil, err
		}
		kept, err := r.reserveCopies()
		if kept {
			return r, nil
		}
		r.Release()
		if err == nil {
			err = sleep(ctx, fullRetry) // nothing tells that there is room elsewhere
		}
		if err != nil {
			return nil, err
		}
	}
}

// reserve waits for room in the queue itself.
func (s *served) reserve(ctx context.Context, messages int, bytes int64) (*reservation, error) {
	for { // a full disk lets native senders wait
		err := s.b.admit(ctx, s, messages, bytes)
		if err == nil {
			break
		}
		if r := reason.Of(err); r != reason.DiskFull && r != reason.QuotaExceeded {
			return nil, err
		}
		select {
		case <-time.After(fullRetry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.b.stopping.Load() {
			return nil, shuttingDown()
		}
	}
	s.mu.Lock()
	if err := s.goneLocked(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if s.damaged.Load() != nil {
		s.mu.Unlock()
		return nil, damagedError(s)
	}
	if err := s.q.CheckEverFits(int64(messages), bytes); err != nil {
		s.mu.Unlock()
		return nil, on(s, err)
	}
	r := &reservation{s: s, messages: int64(messages), bytes: bytes}
	if s.blocked.len == 0 && s.keepRoomLocked(r.messages, r.bytes) {
		s.mu.Unlock()
		return r, nil
	}
	w := &waiting[*blockedSend]{value: &blockedSend{reserve: true, reserveMessages: r.messages, reserveBytes: r.bytes, done: make(chan struct{})}}
	s.blocked.push(w)
	s.mu.Unlock()
	if _, err := s.awaitRoom(ctx, w, &waitTimer{}); err != nil {
		return nil, err
	}
	return r, nil
}

type reservation struct {
	s               *served
	messages, bytes int64          // left; guarded by s.mu
	copies          []*reservation // in queues that must have copies
}

// Send stores messages in the reserved room, and waits until they are on disk.
func (r *reservation) Send(messages []queue.Message) (refused int, err error) {
	refused, ticket, err := r.submit(messages)
	if awaitErr := r.s.b.Await(context.Background(), ticket); awaitErr != nil {
		return len(messages), awaitErr
	}
	return refused, err
}

func (r *reservation) submit(messages []queue.Message) (refused int, _ Ticket, err error) {
	s := r.s
	all := len(messages)
	messages, refused, err = s.onlyValid(messages)
	if len(messages) == 0 {
		return refused, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deleted {
		return all, 0, s.goneLocked()
	}
	if len(s.q.Settings().Binds) > 0 {
		s.mu.Unlock()
		defer s.mu.Lock()
		more, ticket, copyErr := r.submitCopied(messages)
		if err == nil {
			err = copyErr
		}
		return refused + more, ticket, err
	}
	now := s.b.now()
	if _, batchErr := s.storeLocked(now, r.take(messages)); batchErr != nil {
		// One of them is not acceptable: the others are.
		for i := range messages {
			if _, oneErr := s.storeLocked(now, queue.Batch{Messages: messages[i : i+1], Reserved: true}); oneErr != nil {
				refused++
				if err == nil {
					err = on(s, oneErr)
				}
			}
		}
	}
	s.publishLocked()
	s.afterLocked(now)
	return refused, s.last, err
}

// take gives back the room that the messages need, for them to use at once.
func (r *reservation) take(messages []queue.Message) queue.Batch {
	count := min(int64(len(messages)), r.messages)
	bytes := min(totalBytes(messages), r.bytes)
	r.s.q.Unreserve(count, bytes)
	r.messages -= count
	r.bytes -= bytes
	return queue.Batch{Messages: messages, Reserved: true}
}

// Release gives back what was not used.
func (r *reservation) Release() {
	for _, c := range r.copies {
		c.Release()
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.messages == 0 && r.bytes == 0 {
		return
	}
	r.s.q.Unreserve(r.messages, r.bytes)
	r.messages, r.bytes = 0, 0
	r.s.afterLocked(r.s.b.now())
}

// Lease waits for messages that fit and that nobody else waits for.
func (l *lane) Lease(ctx context.Context, selector queue.Selector, max, maxBody int) (out []queue.Delivery, skipped int, err error) {
	s := (*served)(l)
	selector, err = selector.Check()
	if err != nil {
		return nil, 0, err
	}
	var from queue.ReadyCursor
	for {
		s.mu.Lock()
		if err := s.goneLocked(); err != nil {
			s.mu.Unlock()
			return nil, skipped, err
		}
		more := true
		if s.doorHold > 0 || s.q.Paused() {
			more = false
		}
		now := s.b.now()
		for more && len(out) < max {
			var seq uint64
			var big int
			seq, from, big, more = s.q.Fit(selector, maxBody, from)
			skipped += big
			if seq == 0 {
				break
			}
			if d, ok := s.q.LeaseOne(now, seq); ok {
				out = append(out, d)
				s.doorHeld++
			}
			from = queue.ReadyCursor{}
			more = true
		}
		if len(out) > 0 || skipped > 0 && !more {
			s.afterLocked(now)
			s.mu.Unlock()
			return out, skipped, nil
		}
		if w := s.missingLocked(); w != nil {
			s.flushLocked()
			s.mu.Unlock()
			s.fetch(w)
			continue
		}
		if more { // not all were looked at: give way in between
			s.mu.Unlock()
			continue
		}
		from = queue.ReadyCursor{}
		if s.doorWaits == nil {
			s.doorWaits = make(chan struct{})
		}
		waits := s.doorWaits
		s.mu.Unlock()
		select {
		case <-waits:
		case <-ctx.Done():
			return nil, skipped, ctx.Err()
		}
	}
}

// Settle records what has left through the door and gives the rest back.
func (l *lane) Settle(consumed, released []queue.Receipt) {
	s := (*served)(l)
	done := 0
	s.settle(true, func(t queue.Settlements) (missing bool) {
		for _, r := range consumed {
			_ = t.Ack(r) // stale: it was purged meanwhile
		}
		s.doorHeld -= len(consumed)
		consumed = nil
		for ; done < len(released); done++ {
			if t.Release(released[done]) == queue.ErrMissing {
				return true
			}
			s.doorHeld--
		}
		return false
	})
}
