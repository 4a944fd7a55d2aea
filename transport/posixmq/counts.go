package posixmq

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/reason"
)

// counts are what a flow tells about itself. They may be read at any time, without the flow's lock.
type counts struct {
	passed  atomic.Uint64
	skipped atomic.Uint64
	problem atomic.Pointer[string]
}

// Passed returns how many messages went through.
func (c *counts) Passed() uint64 { return c.passed.Load() }

// Skipped returns how many did not, or were not understood.
func (c *counts) Skipped() uint64 { return c.skipped.Load() }

// Problem says what keeps the flow from flowing, or "".
func (c *counts) Problem() string {
	if p := c.problem.Load(); p != nil {
		return *p
	}
	return ""
}

func (c *counts) setProblem(err error) {
	if err == nil {
		c.problem.Store(nil)
		return
	}
	text := err.Error()
	c.problem.Store(&text)
}

// over reports whether the queue has ended for good, as far as its doors are concerned.
func over(err error) bool {
	r := reason.Of(err)
	return r == reason.QueueDeleted || r == reason.ShuttingDown
}

// logPeriod is how often a flow logs what natives may bring about as often as they like.
const logPeriod = time.Minute

// rareLog logs at most once a logPeriod, and then how often it kept silent.
type rareLog struct {
	logger *zap.Logger
	next   atomic.Int64 // monotonic enough: ns since 1970
	silent atomic.Uint64
}

func (l *rareLog) warn(text string, fields ...zap.Field) {
	now, next := time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(logPeriod)) {
		l.silent.Add(1)
		return
	}
	l.logger.Warn(text, append(fields, zap.Uint64("not_logged", l.silent.Swap(0)))...)
}
