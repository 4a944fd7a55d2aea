//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// refused fails unless err has the code and says in a google.rpc.ErrorInfo why.
func refused(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	s := status.Convert(err)
	var info *errdetails.ErrorInfo
	for _, detail := range s.Details() {
		if i, ok := detail.(*errdetails.ErrorInfo); ok {
			info = i
		}
	}
	if s.Code() != code || info.GetReason() != reason || info.GetDomain() != "ipcd" || s.Message() == "" {
		t.Errorf("%s: %v with %v, want %v with %s", what, err, info, code, reason)
	}
}

// unharmed fails unless the daemon answers as before and the queue is as empty as it was.
func unharmed(t *testing.T, d *daemon, q *client.Queue) {
	t.Helper()
	if s := info(t, d.dial(t).Queue(q.Name())).Stats; s.Messages() != 0 || s.SentTotal != 0 || s.Receivers != 0 || s.BlockedSenders != 0 {
		t.Errorf("bad input left %+v", s)
	}
}

func TestSendRefusesBadMessages_S2_S4(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	api := ipcdv1.NewMessageServiceClient(d.conn(t))
	manyHeaders := map[string][]byte{}
	for i := range 65 {
		manyHeaders[fmt.Sprint(i)] = nil
	}
	long := strings.Repeat("x", 257)
	for name, m := range map[string]*ipcdv1.Message{
		"negative type":      {Type: -1},
		"least type":         {Type: math.MinInt64},
		"priority":           {Priority: 32768},
		"greatest priority":  {Priority: math.MaxUint32},
		"negative delay":     {Schedule: &ipcdv1.Message_Delay{Delay: durationpb.New(-1)}},
		"endless delay":      {Schedule: &ipcdv1.Message_Delay{Delay: &durationpb.Duration{Seconds: math.MaxInt64}}},
		"broken delay":       {Schedule: &ipcdv1.Message_Delay{Delay: &durationpb.Duration{Seconds: 1, Nanos: -1}}},
		"broken time":        {Schedule: &ipcdv1.Message_NotBefore{NotBefore: &timestamppb.Timestamp{Nanos: -1}}},
		"time far away":      {Schedule: &ipcdv1.Message_NotBefore{NotBefore: timestamppb.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))}},
		"negative TTL":       {Ttl: durationpb.New(-time.Second)},
		"endless TTL":        {Ttl: &durationpb.Duration{Seconds: math.MaxInt64}},
		"many headers":       {Headers: manyHeaders},
		"long header name":   {Headers: map[string][]byte{long: nil}},
		"large header":       {Headers: map[string][]byte{"k": make([]byte, 65<<10)}},
		"long dedup id":      {DedupId: long},
		"long correlation":   {CorrelationId: long},
		"long content type":  {ContentType: long},
		"bad reply-to queue": {ReplyTo: strings.Repeat("r", 5000)},
	} {
		_, err := api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name(), Messages: []*ipcdv1.Message{{}, m}})
		refused(t, name, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	}
	_, err := api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name(), Messages: []*ipcdv1.Message{{Body: make([]byte, 64<<10+1)}}})
	refused(t, "large body", err, codes.InvalidArgument, "MESSAGE_TOO_LARGE")
	_, err = api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name()})
	refused(t, "empty batch", err, codes.InvalidArgument, "INVALID_ARGUMENT")
	_, err = api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name(), Messages: make([]*ipcdv1.Message, 16385)})
	refused(t, "batch of too many", err, codes.InvalidArgument, "INVALID_ARGUMENT")
	_, err = api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name(), Messages: []*ipcdv1.Message{{}}, ProducerId: long, BatchId: 1})
	refused(t, "long producer id", err, codes.InvalidArgument, "INVALID_ARGUMENT")
	_, err = api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name(), Messages: []*ipcdv1.Message{{}}, Wait: durationpb.New(-time.Second)})
	refused(t, "negative wait", err, codes.InvalidArgument, "INVALID_ARGUMENT")
	if _, err = api.Send(within(t), &ipcdv1.SendRequest{Queue: q.Name(), Messages: []*ipcdv1.Message{{Body: make([]byte, 33<<20)}}}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request above the limit of a frame: %v", err)
	}
	unharmed(t, d, q)
}

func TestReceiveSettleAndPeekRefuseNonsense_S2(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	api := ipcdv1.NewMessageServiceClient(d.conn(t))
	typed := func(types ...int64) *ipcdv1.Selector {
		return &ipcdv1.Selector{Kind: &ipcdv1.Selector_Types{Types: &ipcdv1.TypeSet{Types: types}}}
	}
	for name, r := range map[string]*ipcdv1.ReceiveRequest{
		"too many":      {MaxMessages: 16385},
		"mode":          {MaxMessages: 1, SettleMode: 99},
		"lease":         {MaxMessages: 1, Lease: durationpb.New(-time.Second)},
		"short lease":   {MaxMessages: 1, Lease: durationpb.New(1)},
		"long lease":    {MaxMessages: 1, Lease: durationpb.New(8 * 24 * time.Hour)},
		"wait":          {MaxMessages: 1, Wait: durationpb.New(-1)},
		"long wait":     {MaxMessages: 1, Wait: durationpb.New(25 * time.Hour)},
		"type 0":        {MaxMessages: 1, Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{}}},
		"negative type": {MaxMessages: 1, Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_LowestUpto{LowestUpto: -5}}},
		"empty set":     {MaxMessages: 1, Selector: typed()},
		"bad set":       {MaxMessages: 1, Selector: typed(1, 0)},
		"large set":     {MaxMessages: 1, Selector: typed(make([]int64, 5000)...)},
	} {
		r.Queue = q.Name()
		_, err := api.Receive(within(t), r)
		refused(t, "receive "+name, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	}
	for name, s := range map[string]*ipcdv1.Settlement{
		"nothing":    {},
		"no outcome": {Target: &ipcdv1.Settlement_Receipt{Receipt: "1.1.1.1.1"}},
		"no receipt": {Outcome: &ipcdv1.Settlement_Ack{Ack: &ipcdv1.Ack{}}},
		"tags":       {Target: &ipcdv1.Settlement_Tags{Tags: &ipcdv1.TagRange{First: 1, Last: math.MaxUint64}}, Outcome: &ipcdv1.Settlement_Ack{Ack: &ipcdv1.Ack{}}},
	} {
		response, err := api.Settle(within(t), &ipcdv1.SettleRequest{Settlements: []*ipcdv1.Settlement{s}})
		if err == nil && len(response.GetFailures()) != 1 || err != nil && status.Code(err) != codes.InvalidArgument {
			t.Errorf("settle %s: %v, %v", name, response, err)
		}
	}
	for name, r := range map[string]*ipcdv1.PeekRequest{
		"state":  {Filter: &ipcdv1.Filter{States: []ipcdv1.MessageState{77}}},
		"range":  {Filter: &ipcdv1.Filter{MinSequence: 5, MaxSequence: 4}},
		"age":    {Filter: &ipcdv1.Filter{OlderThan: durationpb.New(-1)}},
		"cursor": {Cursor: strings.Repeat("c", 10000)},
	} {
		r.Queue = q.Name()
		stream, err := api.Peek(within(t), r)
		if err == nil {
			_, err = stream.Recv()
		}
		refused(t, "peek "+name, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	}
	unharmed(t, d, q)
}

// rawCodec passes bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) {
	return *v.(*[]byte), nil
}
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}

func TestEveryMethodSurvivesEmptyAndMalformedRequests(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	conn := d.conn(t)
	malformed := [][]byte{
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, // a field number without end
		{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f},                               // a field of 4 GiB that is not there
		{0x0a, 0x01},                                                       // a field that is cut off
		{0x0b, 0x0b, 0x0b},                                                 // groups that never end
		{0x0a, 0x02, 0xc3, 0x28},                                           // text that is no UTF-8
	}
	call := func(service, method string, request []byte) (err error) {
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+service+"/"+method, grpc.ForceCodec(rawCodec{}))
		if err == nil {
			err = stream.SendMsg(&request)
		}
		if err == nil || errors.Is(err, io.EOF) {
			_ = stream.CloseSend()
			var response []byte
			for err = nil; err == nil; {
				err = stream.RecvMsg(&response)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	for _, service := range []grpc.ServiceDesc{ipcdv1.QueueAdminService_ServiceDesc, ipcdv1.MessageService_ServiceDesc, ipcdv1.SchemaService_ServiceDesc, ipcdv1.SystemService_ServiceDesc} {
		var methods []string
		for _, m := range service.Methods {
			methods = append(methods, m.MethodName)
		}
		for _, m := range service.Streams {
			methods = append(methods, m.StreamName)
		}
		for _, method := range methods {
			if method == "OpenTemporaryQueue" { // it needs nothing, and goes on until the caller ends it
				for i, request := range malformed[:4] {
					if code := status.Code(call(service.ServiceName, method, request)); code != codes.Internal && code != codes.InvalidArgument {
						t.Errorf("malformed request %d to %s: %v", i, method, code)
					}
				}
				continue
			}
			err := call(service.ServiceName, method, nil)
			switch method {
			case "GetInfo", "ListQueues", "Backup", "Reload", "GetMetrics", "ListClients", "ListQuotas": // need nothing
				if err != nil {
					t.Errorf("an empty %s: %v", method, err)
				}
			default:
				refused(t, "an empty "+method, err, codes.InvalidArgument, "INVALID_ARGUMENT")
			}
			for i, request := range malformed {
				if slices.Contains([]string{"GetInfo", "Backup", "Reload", "GetMetrics", "ListClients", "ListQuotas"}, method) && i == 4 {
					continue // it has no field of text
				}
				if code := status.Code(call(service.ServiceName, method, request)); code != codes.Internal && code != codes.InvalidArgument {
					t.Errorf("malformed request %d to %s: %v", i, method, code)
				}
			}
		}
	}
	refused(t, "an unknown method", call("ipcd.v1.MessageService", "Teleport", nil), codes.Unimplemented, "UNIMPLEMENTED")
	refused(t, "an unknown service", call("ipcd.v9.MessageService", "Send", nil), codes.Unimplemented, "UNIMPLEMENTED")
	unharmed(t, d, q)
}

func TestStreamsRefuseFramesOutOfPlace(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	api := ipcdv1.NewMessageServiceClient(d.conn(t))
	open := &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: q.Name()}}}
	credit := &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: 1}}}
	tooMuch := &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: math.MaxUint64}}}
	for name, frames := range map[string][]*ipcdv1.ConsumeRequest{
		"credit first": {credit},
		"empty first":  {{}},
		"open twice":   {open, open},
		"empty second": {open, {}},
	} {
		stream, err := api.Consume(within(t))
		for _, f := range frames {
			if err == nil {
				err = stream.Send(f)
			}
		}
		for err == nil {
			_, err = stream.Recv()
		}
		refused(t, name, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	}
	stream, err := api.Consume(within(t))
	for _, f := range []*ipcdv1.ConsumeRequest{open, tooMuch, tooMuch} {
		if err == nil {
			err = stream.Send(f)
		}
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if code := status.Code(err); code != codes.InvalidArgument && code != codes.ResourceExhausted {
		t.Errorf("credit without end: %v", err)
	}

	// A tag that was never given out fails for itself; the stream goes on.
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	stream, err = api.Consume(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ack := &ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Settlements{Settlements: &ipcdv1.Settlements{SettleId: 5, Settlements: []*ipcdv1.Settlement{
		{Target: &ipcdv1.Settlement_Tags{Tags: &ipcdv1.TagRange{First: 1000, Last: 1000}}, Outcome: &ipcdv1.Settlement_Ack{Ack: &ipcdv1.Ack{}}},
	}}}}
	for _, f := range []*ipcdv1.ConsumeRequest{open, ack, credit} {
		if err := stream.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if results := response.GetSettleResults(); results != nil {
			if f := results.GetFailures(); len(f) != 1 || f[0].GetError().GetReason() != "STALE_RECEIPT" || results.GetSettleId() != 5 {
				t.Errorf("settle results %v", results)
			}
			break
		}
	}
	cancel()
	eventually(t, "the consumer is gone", func() bool { return info(t, q).Stats.Receivers == 0 })
	unharmed(t, d, q)
}

func TestSettingsOutsideTheLimitsAreRefused_S2(t *testing.T) {
	t.Parallel()
	d := start(t)
	api := ipcdv1.NewQueueAdminServiceClient(d.conn(t))
	for name, s := range map[string]*ipcdv1.QueueSettings{
		"messages":     {MaxMessages: new(uint64(math.MaxUint64))},
		"bytes":        {MaxBytes: new(uint64(math.MaxUint64))},
		"message size": {MaxMessageSize: new(uint64(16<<20 + 1))},
		"lease":        {Lease: durationpb.New(time.Nanosecond)},
		"attempts":     {MaxAttempts: new(uint32(70000))},
		"dead letters": {DeadLetterQueue: new("no slash")},
		"overflow":     {Overflow: 9},
		"durability":   {Durability: 9},
		"back-off":     {Backoff: &ipcdv1.Backoff{Initial: durationpb.New(2), Max: durationpb.New(1)}},
		"dedup window": {DedupWindow: durationpb.New(-1)},
		"type names":   {TypeNames: map[string]int64{"x": 0}},
		"type name":    {TypeNames: map[string]int64{"7": 7}},
		"mode":         {Mode: new(uint32(0o7777))},
		"kernel mode":  {Mqueue: &ipcdv1.KernelQueue{Mode: 42}},
		"kernel type":  {Mqueue: &ipcdv1.KernelQueue{Type: -1}},
	} {
		queue := unique()
		_, err := api.CreateQueue(within(t), &ipcdv1.CreateQueueRequest{Name: queue, Settings: s})
		refused(t, name, err, codes.InvalidArgument, "INVALID_ARGUMENT")
		_, err = api.GetQueue(within(t), &ipcdv1.GetQueueRequest{Name: queue})
		refused(t, name+", then get", err, codes.NotFound, "QUEUE_NOT_FOUND")
	}
}
