package posixmq

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// ProblemHeader is the header of a message that came in without the type prefix that was declared. It
// says what was wrong; the body is all that was sent and the type is the door's.
const ProblemHeader = "ipcd-door-problem"

// problemBytes is what the header may add to a message's size.
const problemBytes = len(ProblemHeader) + 80

// Inlet moves messages from a kernel queue into a queue. Room for them is reserved before any is
// taken: while the queue has none they stay in the kernel queue, which fills up and makes mq_send wait.
type Inlet struct {
	counts
	mq         *MQ
	lane       broker.DoorQueue
	typ        int64
	typePrefix bool
	log        rareLog

	ctx     context.Context
	cancel  context.CancelFunc
	flow    sync.WaitGroup
	scratch []byte // for one message
	// batch is how many messages to reserve room for at the next turn: 1 after a turn in which the
	// queue had not enough for more, doubling from then on.
	batch int
}

// How an Inlet bears with its queue.
const (
	reservePatience = 10 * time.Millisecond // for a batch, before it asks for room for one message and waits as long as it takes
	refusalPause    = time.Second           // before it asks again after the queue refused to make room
	farewell        = time.Second           // for what is left when the kernel queue is removed
)

// NewInlet returns an Inlet that does nothing yet. The MQ stays the caller's, to be closed after Stop.
func NewInlet(mq *MQ, lane broker.DoorQueue, k queue.KernelQueue, logger *zap.Logger) *Inlet {
	in := &Inlet{mq: mq, lane: lane, typ: k.Type, typePrefix: k.TypePrefix, log: rareLog{logger: logger}}
	in.ctx, in.cancel = context.WithCancel(context.Background())
	in.batch = mq.maxMessages
	in.scratch = make([]byte, mq.messageSize)
	return in
}

// Start lets messages flow until Stop, or until the queue is deleted or the daemon stops.
func (in *Inlet) Start() {
	in.flow.Go(in.run)
}

// Stop ends the flow. What is in the kernel queue stays there.
func (in *Inlet) Stop() {
	in.cancel()
	in.mq.SetDeadline(time.Unix(1, 0)) // wakes AwaitMessages
	in.flow.Wait()
	in.mq.SetDeadline(time.Time{})
}

// Rest takes in what a stopped Inlet's kernel queue still holds, for as long as the queue has room, and
// returns how many messages are left in it, which are lost if the object is removed.
func (in *Inlet) Rest() int {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	// Those who have it open can go on sending: the first filling is what was there.
	for range in.mq.maxMessages {
		if n, err := in.mq.Current(); n == 0 || err != nil {
			break
		}
		if err := in.turn(ctx, 1); err != nil {
			break
		}
	}
	left, _ := in.mq.Current()
	return left
}

// run waits for a message, reserves room, takes what there is and stores it, over and over.
func (in *Inlet) run() {
	for {
		current, err := in.mq.AwaitMessages()
		if in.ctx.Err() != nil {
			return
		}
		if err != nil {
			in.setProblem(reason.New(reason.Internal, "kernel queue %s: %v", in.mq.name, err))
			return
		}
		n := min(current, in.batch, in.most())
		err = in.turnPatiently(n)
		switch {
		case in.ctx.Err() != nil || over(err):
			return
		case err == nil:
			in.batch = min(2*in.batch, in.mq.maxMessages)
			in.setProblem(nil)
		case n > 1:
			in.batch = 1 // there may be room for one
		default:
			in.setProblem(err)
			in.log.warn("nothing is taken from the kernel queue", zap.Error(err))
			in.pause(refusalPause)
		}
	}
}

// most is how many messages of the largest size one batch may have.
func (in *Inlet) most() int {
	return max(1, min(limits.BatchMessages, limits.BatchBytes/in.messageBytes()))
}

// messageBytes is what a message may be charged at most.
func (in *Inlet) messageBytes() int {
	if in.typePrefix {
		return in.mq.messageSize + problemBytes
	}
	return in.mq.messageSize
}

// turnPatiently waits for room for one message as long as it takes, but not so for more: there may
// never be that much, while there is some.
func (in *Inlet) turnPatiently(n int) error {
	if n == 1 {
		return in.turn(in.ctx, 1)
	}
	ctx, cancel := context.WithTimeout(in.ctx, reservePatience)
	defer cancel()
	return in.turn(ctx, n)
}

// turn reserves room for n messages, takes up to n and stores them.
func (in *Inlet) turn(ctx context.Context, n int) error {
	room, err := in.lane.Reserve(ctx, n, int64(n)*int64(in.messageBytes()))
	if err != nil {
		return err
	}
	defer room.Release()
	messages := make([]queue.Message, 0, n)
	for len(messages) < n {
		size, priority, err := in.mq.Receive(in.scratch)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return in.store(room, messages, reason.New(reason.Internal, "kernel queue %s: mq_receive: %v", in.mq.name, err))
		}
		messages = append(messages, in.message(append([]byte(nil), in.scratch[:size]...), priority))
	}
	return in.store(room, messages, nil)
}

// store sends what was taken, and returns the error that stands for the turn.
func (in *Inlet) store(room broker.Reservation, messages []queue.Message, failed error) error {
	if len(messages) == 0 {
		return failed
	}
	refused, err := room.Send(messages)
	if err != nil && refused == 0 {
		refused = len(messages) // none was stored
		failed = err
	}
	if refused > 0 {
		in.skipped.Add(uint64(refused))
		in.log.warn("messages from the kernel queue were refused and are lost", zap.Int("messages", refused), zap.Error(err))
	}
	in.passed.Add(uint64(len(messages) - refused))
	return failed
}

// message makes a message of a body as it came in.
func (in *Inlet) message(body []byte, priority uint16) queue.Message {
	m := queue.Message{Type: in.typ, Priority: priority, Body: body}
	if !in.typePrefix {
		return m
	}
	problem := ""
	if len(body) < PrefixSize {
		problem = fmt.Sprintf("%d bytes: too short for a type of %d bytes", len(body), PrefixSize)
	} else if t := int64(binary.NativeEndian.Uint64(body)); t <= 0 {
		problem = fmt.Sprintf("type %d: types are positive", t)
	} else {
		m.Type, m.Body = t, body[PrefixSize:]
		return m
	}
	m.Headers = []queue.Header{{Key: ProblemHeader, Value: []byte(problem)}}
	in.skipped.Add(1)
	in.log.warn("a message from the kernel queue has no type in front; stored whole, with the door's type", zap.String("problem", problem))
	return m
}

// pause waits, unless the Inlet is stopped.
func (in *Inlet) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-in.ctx.Done():
	}
}
