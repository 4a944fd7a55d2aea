package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/reason"
)

// guard runs f. A panic becomes an error and a log entry with the stack: one request never takes
// down the daemon.
func (s *Server) guard(method string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a handler", zap.String("method", method), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = reason.New(reason.Internal, "an internal error; the daemon's log tells more")
		}
	}()
	return f()
}

func (s *Server) interceptUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	callOf(ctx).onRequest(request)
	response, err := handle(ctx, request)
	if err != nil {
		return nil, s.toStatus(info.FullMethod, err)
	}
	return response, nil
}

func (s *Server) interceptStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	ctx, call, err := s.begin(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer func() { s.end(call, err) }()
	stream = &arriving{ServerStream: stream, arrival: call.arrival}
	if !strings.HasPrefix(info.FullMethod, "/ipcd.") {
		// A watch of grpc.health.v1 would hold up a stop for ever.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.closing, cancel)()
		err := s.guard(info.FullMethod, func() error { return handle(server, withContext{stream, ctx}) })
		if e, ok := err.(*reason.Error); ok {
			return statusOf(e).Err()
		}
		return err
	}
	stream = withContext{stream, ctx}
	if !info.IsClientStream {
		stream = oneRequest{stream}
	}
	return s.toStatus(info.FullMethod, s.guard(info.FullMethod, func() error { return handle(server, stream) }))
}

// oneRequest is a stream whose only request is read by the generated code. That it cannot be read is
// the caller's fault and not an internal error.
type oneRequest struct{ grpc.ServerStream }

func (s oneRequest) RecvMsg(m any) error {
	call := callOf(s.Context())
	complete := call.within()
	err := s.ServerStream.RecvMsg(m)
	complete()
	switch {
	case errors.Is(err, io.EOF):
		return reason.New(reason.InvalidArgument, "the call ended without a request")
	case err != nil:
		return recvError(s.Context(), err)
	}
	call.onRequest(m)
	return nil
}

// withContext is a stream with another context.
type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s withContext) Context() context.Context { return s.ctx }

// unknownMethod answers calls of methods that this version does not have.
func (s *Server) unknownMethod(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return reason.New(reason.Unimplemented, "ipcd %s has no method %.200q", s.version, method)
}

// firstFrame says that a stream did not begin as it must.
func firstFrame(kind any) error {
	if kind == nil {
		return reason.New(reason.InvalidArgument, "the stream's first frame is empty: it must be `open`")
	}
	return reason.New(reason.InvalidArgument, "the stream's first frame must be `open`, not %s", frameName(kind))
}

// unexpectedFrame says that a frame has no place in the middle of a stream.
func unexpectedFrame(kind any, allowed string) error {
	if kind == nil {
		return reason.New(reason.InvalidArgument, "an empty frame: after `open` come %s", allowed)
	}
	return reason.New(reason.InvalidArgument, "a second %s: a stream is opened once; after that come %s", frameName(kind), allowed)
}

// frameName names a frame of a oneof as the schema does: *ipcdv1.ConsumeRequest_Open is `open`.
func frameName(kind any) string {
	name := fmt.Sprintf("%T", kind)
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '_' {
			name = name[i+1:]
			break
		}
	}
	return "`" + string(name[0]|0x20) + name[1:] + "`"
}
