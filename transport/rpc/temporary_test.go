package rpc

import (
	"context"
	"testing"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// openTemporary opens a temporary queue. ended is closed when the broker is told to end it.
func openTemporary(t *testing.T) (h *harness, stream ipcdv1.QueueAdminService_OpenTemporaryQueueClient, leave context.CancelFunc, ended <-chan struct{}) {
	t.Helper()
	closed := make(chan struct{})
	h = serve(t, &fakeBroker{temporary: func(edit broker.Edit) (broker.Info, func(), error) {
		s := queue.Default(1, 2)
		if err := edit(&s); err != nil {
			return broker.Info{}, nil, err
		}
		return broker.Info{Name: "/tmp.x", Settings: s, Temporary: true}, func() { close(closed) }, nil
	}})
	ctx, leave := context.WithCancel(t.Context())
	t.Cleanup(leave)
	stream, err := h.admin.OpenTemporaryQueue(ctx, &ipcdv1.OpenTemporaryQueueRequest{Settings: &ipcdv1.QueueSettings{MaxMessages: new(uint64(3))}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if r.Queue.Name != "/tmp.x" || !r.Queue.Temporary || r.Queue.Settings.GetMaxMessages() != 3 {
		t.Errorf("answer %v", r)
	}
	return h, stream, leave, closed
}

func TestATemporaryQueueEndsWhenItsCallIsCancelled(t *testing.T) {
	_, _, leave, ended := openTemporary(t)
	leave()
	<-ended
}

func TestATemporaryQueueEndsWithTheConnection(t *testing.T) {
	h, _, _, ended := openTemporary(t)
	h.unix.Close()
	<-ended
}

func TestATemporaryQueueOutlivesTheDrainAndEndsWithTheDaemon(t *testing.T) {
	h, stream, _, ended := openTemporary(t)
	h.server.Drain()
	for range 10 {
		if _, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-ended:
		t.Error("it ended while answers may still come")
	default:
	}
	h.server.close()
	<-ended
	_, err := stream.Recv()
	wantReason(t, err, reason.ShuttingDown)
}

func TestATemporaryQueueThatIsRefusedIsNotClosed(t *testing.T) {
	h := serve(t, &fakeBroker{temporary: func(broker.Edit) (broker.Info, func(), error) {
		return broker.Info{}, nil, reason.Invalid("settings.durability", "a temporary queue is kept in memory")
	}})
	stream, err := h.admin.OpenTemporaryQueue(t.Context(), &ipcdv1.OpenTemporaryQueueRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantInvalid(t, err, "settings.durability")
}
