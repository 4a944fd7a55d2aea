package queue

import (
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func (q *Queue) checkBatch(b *Batch) error {
	if len(b.Messages) == 0 || len(b.Messages) > limits.BatchMessages {
		return reason.Invalid("messages", "a batch of %d messages: it must have 1 to %d", len(b.Messages), limits.BatchMessages)
	}
	if len(b.Producer) > limits.IDLength {
		return reason.Invalid("producer_id", "a producer id of %d bytes: it may have %d", len(b.Producer), limits.IDLength)
	}
	if b.Past != nil && len(b.Past) != len(b.Messages) {
		return reason.New(reason.Internal, "%d messages with the past of %d", len(b.Messages), len(b.Past))
	}
	total := 0
	for i := range b.Messages {
		m := &b.Messages[i]
		switch {
		case b.Internal:
			if len(m.Body) > q.settings.MaxMessageSize {
				return reason.New(reason.MessageTooLarge, "a body of %d bytes: the queue takes at most %d", len(m.Body), q.settings.MaxMessageSize)
			}
		case b.Past != nil:
			if err := m.checkImported(q.settings.MaxMessageSize); err != nil {
				return err.At(i)
			}
		default:
			if err := m.check(q.settings.MaxMessageSize); err != nil {
				return err.At(i)
			}
		}
		total += m.Bytes()
	}
	if total > limits.BatchBytes && len(b.Messages) > 1 {
		return reason.Invalid("messages", "a batch of %d bytes: it may have %d; send it in several", total, limits.BatchBytes)
	}
	return nil
}

// CheckFits says what is wrong with a batch that no room would cure.
func (q *Queue) CheckFits(b Batch) error {
	if err := q.checkBatch(&b); err != nil {
		return err
	}
	bytes := int64(0)
	for i := range b.Messages {
		bytes += int64(b.Messages[i].Bytes())
	}
	return q.CheckEverFits(int64(len(b.Messages)), bytes)
}

// CheckEverFits says whether so many messages of so many bytes exceed what the queue may hold.
func (q *Queue) CheckEverFits(messages, bytes int64) error {
	s := &q.settings
	if messages > s.MaxMessages || bytes > s.MaxBytes {
		return reason.New(reason.QueueFull, "a batch of %d messages and %d bytes can never fit: the queue holds at most %d messages and %d bytes",
			messages, bytes, s.MaxMessages, s.MaxBytes)
	}
	return nil
}

// CheckSend says whether Send would succeed now if so many messages of so many bytes were gone, or, where the numbers
// are negative, had come. It tells which messages are duplicates, and changes nothing.
func (q *Queue) CheckSend(now Instant, b Batch, freedMessages, freedBytes int64) ([]Duplicate, error) {
	if stored, repeated, err := q.Repeat(b.Producer, b.Number); repeated || err != nil {
		return stored.Duplicates, err
	}
	if err := q.checkBatch(&b); err != nil {
		return nil, err
	}
	r := Record{kind: recSend, At: now, First: q.nextSeq}
	bytes, err := q.prepare(&r, &b)
	if err == nil && b.Producer != "" {
		err = q.producers.admit(b.Producer, len(r.Duplicates), now.Wall)
	}
	if err != nil || len(r.Messages) == 0 || b.Reserved {
		return r.Duplicates, err
	}
	if err := q.findRoom(&r, int64(len(r.Messages)), bytes, freedMessages, freedBytes); err != nil {
		return nil, err
	}
	return r.Duplicates, q.mayGrow(&r, bytes-freedBytes)
}
