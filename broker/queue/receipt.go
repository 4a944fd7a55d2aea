package queue

import (
	"strconv"
	"strings"

	"github.com/ipcd/ipcd/internal/reason"
)

// Receipt names one delivery of one message. Its text form, "queue.epoch.sequence.delivery.check", is
// safe in a shell. The check guards against slips of the hand, not against strangers: access to the
// queue is checked at every use.
type Receipt struct {
	Queue    uint64 // the queue's id
	Epoch    uint32 // of the queue; rises when a crash makes receipts stale
	Sequence uint64
	Delivery uint32 // counts the message's leases
	Check    uint32
}

// receiptCheck mixes the receipt's fields with the queue's secret.
func receiptCheck(secret uint64, r Receipt) uint32 {
	const odd = 0x9e3779b97f4a7c15 // the golden ratio's multiplier, as in SplitMix64
	x := (secret ^ r.Queue ^ uint64(r.Epoch)<<32 ^ uint64(r.Delivery)) * odd
	x = (x ^ x>>29 ^ r.Sequence) * odd
	return uint32(x >> 32)
}

// String returns the text form.
func (r Receipt) String() string {
	b := make([]byte, 0, 48)
	b = strconv.AppendUint(b, r.Queue, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(r.Epoch), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, r.Sequence, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(r.Delivery), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(r.Check), 36)
	return string(b)
}

// ParseReceipt reads the text form. What is no receipt at all is InvalidArgument.
func ParseReceipt(s string) (Receipt, error) {
	var r Receipt
	parts := strings.Split(s, ".")
	if len(s) > 100 || len(parts) != 5 {
		return r, badReceipt(s)
	}
	var v [5]uint64
	for i, p := range parts {
		base, bits := 10, 64
		switch i {
		case 1, 3:
			bits = 32
		case 4:
			base, bits = 36, 32
		}
		n, err := strconv.ParseUint(p, base, bits)
		if err != nil {
			return r, badReceipt(s)
		}
		v[i] = n
	}
	return Receipt{Queue: v[0], Epoch: uint32(v[1]), Sequence: v[2], Delivery: uint32(v[3]), Check: uint32(v[4])}, nil
}

func badReceipt(s string) error {
	return reason.Invalid("receipt", "%.100q is no receipt: pass on what a receive returned, such as 1.1.42.1.k3x9z1", s)
}
