package rpc

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// diskFullRetry is when to try again where nothing better is known.
const diskFullRetry = time.Second

// explain turns any error into one that may be shown to the caller. What is neither a *reason.Error
// nor the context's is a defect of ours: its detail goes to the log alone.
func (s *Server) explain(method string, err error) *reason.Error {
	var e *reason.Error
	switch {
	case errors.As(err, &e):
		if e.Reason == reason.DiskFull && e.RetryAfter == 0 {
			again := *e // room may come at any time: by acks, or by whoever looks after the disk
			return again.Retry(diskFullRetry)
		}
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return reason.New(reason.TimedOut, "the deadline passed before there was an answer")
	case errors.Is(err, context.Canceled):
		return reason.New(reason.Cancelled, "the caller gave up")
	}
	s.log.Error("internal error", zap.String("method", method), zap.Error(err))
	return reason.New(reason.Internal, "an internal error; the daemon's log tells more")
}

// toStatus returns the gRPC status of err, as a call ends with it.
func (s *Server) toStatus(method string, err error) error {
	if err == nil {
		return nil
	}
	var ended streamEnded
	if errors.As(err, &ended) {
		return ended.error
	}
	return statusOf(s.explain(method, err)).Err()
}

// statusOf puts e into a status with google.rpc.ErrorInfo, and with BadRequest and RetryInfo where
// they help.
func statusOf(e *reason.Error) *status.Status {
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: reason.Domain, Metadata: map[string]string{}}
	if e.Queue != "" {
		info.Metadata["queue"] = e.Queue
	}
	if e.Index != reason.Whole {
		info.Metadata["index"] = strconv.Itoa(e.Index)
	}
	details := []protoadapt.MessageV1{info}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: e.Message}},
		})
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	plain := status.New(e.Reason.Lookup().Code, e.Message)
	if full, err := plain.WithDetails(details...); err == nil {
		return full
	}
	return plain
}

// toError returns err as an error inside a stream or response that goes on.
func (s *Server) toError(method string, err error) *ipcdv1.Error {
	e := s.explain(method, err)
	out := &ipcdv1.Error{Code: int32(e.Reason.Lookup().Code), Reason: string(e.Reason), Message: e.Message}
	if e.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(e.RetryAfter)
	}
	if e.Index != reason.Whole {
		index := uint32(e.Index)
		out.Index = &index
	}
	return out
}

// streamEnded is what grpc said when it could not send or receive: the stream is over and its status
// is grpc's.
type streamEnded struct{ error }

func (e streamEnded) Unwrap() error { return e.error }

// recvError explains why a request could not be read. Bytes that are no such message, and messages
// that are too large, grpc has answered by itself by then (INTERNAL and RESOURCE_EXHAUSTED).
func recvError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return streamEnded{err}
}
