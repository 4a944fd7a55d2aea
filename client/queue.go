package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// selectPage is how many messages one call of a purge or kick asks for, so that its progress shows.
const selectPage = 16384

// Queue is one queue of a daemon. Making one does no I/O and says nothing about whether it exists.
type Queue struct {
	c    *Client
	name string
}

// Queue returns the queue of that name, with or without its leading slash.
func (c *Client) Queue(name string) *Queue { return &Queue{c: c, name: queueName(name)} }

// Name returns the queue's name with its slash.
func (q *Queue) Name() string { return q.name }

// Info returns the queue as it is now.
func (q *Queue) Info(ctx context.Context) (QueueInfo, error) { return q.c.GetQueue(ctx, q.name) }

// CreateOption changes what CreateQueue does.
type CreateOption func(*createOptions)

type createOptions struct {
	exclusive bool
	created   *bool
}

// Exclusive lets CreateQueue fail with ErrQueueExists even where a queue has the same settings.
func Exclusive() CreateOption { return func(o *createOptions) { o.exclusive = true } }

// ReportCreated lets CreateQueue say in created whether the queue is new (true) or was there already.
func ReportCreated(created *bool) CreateOption { return func(o *createOptions) { o.created = created } }

// Filter narrows what Peek shows and what PurgeQueue and KickQueue touch. All that is set must hold.
type Filter struct {
	Selector    Selector
	States      []State           // none: Peek ready ones; PurgeQueue ready, delayed and buried ones; KickQueue always buried ones
	MinSequence uint64            // the first sequence meant
	MaxSequence uint64            // the last; 0: no bound
	OlderThan   time.Duration     // sent at least this long ago
	Headers     map[string][]byte // headers that must be there with exactly these values
}

// SelectOptions says which messages PurgeQueue and KickQueue mean.
type SelectOptions struct {
	Filter   Filter
	Limit    int64            // messages at most; 0: all
	DryRun   bool             // count only
	Progress func(done int64) // called now and then, from the calling goroutine, with the messages done so far; may be nil
}

// CreateQueue makes a queue. Where one with the same settings exists it succeeds; where one with others
// exists it fails with ErrQueueExists, which names the difference.
func (c *Client) CreateQueue(ctx context.Context, name string, s QueueSettings, opts ...CreateOption) (QueueInfo, error) {
	var o createOptions
	for _, opt := range opts {
		opt(&o)
	}
	if e := s.check(); e != nil {
		return QueueInfo{}, e
	}
	name = queueName(name)
	r, err := c.admin.CreateQueue(ctx, &ipcdv1.CreateQueueRequest{Name: name, Settings: s.proto(), Exclusive: o.exclusive})
	if err != nil {
		return QueueInfo{}, c.rpcError(err, name)
	}
	if o.created != nil {
		*o.created = r.GetCreated()
	}
	return queueInfoOf(r.GetQueue()), nil
}

// GetQueue returns a queue as it is now.
func (c *Client) GetQueue(ctx context.Context, name string) (QueueInfo, error) {
	name = queueName(name)
	r, err := c.admin.GetQueue(ctx, &ipcdv1.GetQueueRequest{Name: name})
	if err != nil {
		return QueueInfo{}, c.rpcError(err, name)
	}
	return queueInfoOf(r.GetQueue()), nil
}

// UpdateQueue changes settings: those that fields names, by their names in the protobuf schema such as
// "lease", "backoff.initial" or "mqueue.mode". A field that is named and zero in s returns to its default.
func (c *Client) UpdateQueue(ctx context.Context, name string, s QueueSettings, fields ...string) (QueueInfo, error) {
	name = queueName(name)
	if len(fields) == 0 {
		return QueueInfo{}, newError(reason.InvalidArgument, "no fields to update: name at least one, such as \"lease\"").on(name)
	}
	if e := s.check(); e != nil {
		return QueueInfo{}, e
	}
	r, err := c.admin.UpdateQueue(ctx, &ipcdv1.UpdateQueueRequest{Name: name, Settings: s.proto(), UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}})
	if err != nil {
		return QueueInfo{}, c.rpcError(err, name)
	}
	return queueInfoOf(r.GetQueue()), nil
}

// DeleteQueue removes a queue and tells how many messages went with it.
func (c *Client) DeleteQueue(ctx context.Context, name string) (messages int64, err error) {
	name = queueName(name)
	r, err := c.admin.DeleteQueue(ctx, &ipcdv1.DeleteQueueRequest{Name: name})
	if err != nil {
		return 0, c.rpcError(err, name)
	}
	return count(r.GetMessages()), nil
}

// Queues lists, by name, the queues that the caller may look at and whose name, without its slash,
// matches glob: a pattern as of path.Match, "" for all. An error ends the sequence.
func (c *Client) Queues(ctx context.Context, glob string) iter.Seq2[QueueInfo, error] {
	return func(yield func(QueueInfo, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.admin.ListQueues(ctx, &ipcdv1.ListQueuesRequest{Glob: glob})
		for err == nil {
			var r *ipcdv1.ListQueuesResponse
			if r, err = stream.Recv(); err == nil && !yield(queueInfoOf(r.GetQueue()), nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(QueueInfo{}, c.rpcError(err, ""))
		}
	}
}

// PauseQueue stops deliveries, not sends.
func (c *Client) PauseQueue(ctx context.Context, name string) (QueueInfo, error) {
	name = queueName(name)
	r, err := c.admin.PauseQueue(ctx, &ipcdv1.PauseQueueRequest{Name: name})
	if err != nil {
		return QueueInfo{}, c.rpcError(err, name)
	}
	return queueInfoOf(r.GetQueue()), nil
}

// ResumeQueue lets deliveries go on.
func (c *Client) ResumeQueue(ctx context.Context, name string) (QueueInfo, error) {
	name = queueName(name)
	r, err := c.admin.ResumeQueue(ctx, &ipcdv1.ResumeQueueRequest{Name: name})
	if err != nil {
		return QueueInfo{}, c.rpcError(err, name)
	}
	return queueInfoOf(r.GetQueue()), nil
}

// PurgeQueue removes messages for good and tells how many, also where an error ends it halfway.
func (c *Client) PurgeQueue(ctx context.Context, name string, o SelectOptions) (messages int64, err error) {
	name = queueName(name)
	return c.inPages(name, o, func(limit uint64, cursor string) (uint64, string, error) {
		r, err := c.admin.PurgeQueue(ctx, &ipcdv1.PurgeQueueRequest{Name: name, Filter: o.Filter.proto(), Limit: limit, DryRun: o.DryRun, Cursor: cursor})
		return r.GetMessages(), r.GetCursor(), err
	})
}

// KickQueue returns buried messages to ready and tells how many, also where an error ends it halfway.
func (c *Client) KickQueue(ctx context.Context, name string, o SelectOptions) (messages int64, err error) {
	name = queueName(name)
	return c.inPages(name, o, func(limit uint64, cursor string) (uint64, string, error) {
		r, err := c.admin.KickMessages(ctx, &ipcdv1.KickMessagesRequest{Name: name, Filter: o.Filter.proto(), Limit: limit, DryRun: o.DryRun, Cursor: cursor})
		return r.GetMessages(), r.GetCursor(), err
	})
}

// inPages calls do until there is nothing more to do, or o.Limit is reached.
func (c *Client) inPages(name string, o SelectOptions, do func(limit uint64, cursor string) (uint64, string, error)) (int64, error) {
	if o.Limit < 0 {
		return 0, newError(reason.InvalidArgument, "limit %d: it must be positive, or 0 for all", o.Limit).on(name)
	}
	var done int64
	for cursor := ""; ; {
		limit := uint64(selectPage)
		if o.Limit > 0 {
			limit = min(limit, uint64(o.Limit-done))
		}
		n, next, err := do(limit, cursor)
		if err != nil {
			return done, c.rpcError(err, name)
		}
		done += count(n)
		if o.Progress != nil {
			o.Progress(done)
		}
		if next == "" || o.Limit > 0 && done >= o.Limit {
			return done, nil
		}
		cursor = next
	}
}

// queueName adds the slash that people may leave out.
func queueName(name string) string {
	if name == "" || strings.HasPrefix(name, "/") {
		return name
	}
	return "/" + name
}
