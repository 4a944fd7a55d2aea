//go:build linux

package e2e

import (
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGrpcurlListsAndCalls(t *testing.T) {
	t.Parallel()
	grpcurl, err := buildGrpcurl()
	if err != nil {
		t.Fatal(err)
	}
	d := start(t)
	q := createNamed(t, d.dial(t), unique()+anyone, memory())
	run := func(arguments ...string) result {
		cmd := exec.CommandContext(within(t), grpcurl, append([]string{"-plaintext"}, arguments...)...)
		cmd.Env = environment()
		return finish(t, cmd)
	}
	local := func(arguments ...string) result {
		return run(append([]string{"-unix"}, arguments...)...)
	}

	services := local(d.socket, "list").ok(t)
	for _, service := range []string{"ipcd.v1.MessageService", "ipcd.v1.QueueAdminService", "ipcd.v1.SystemService", "grpc.health.v1.Health"} {
		if !strings.Contains(services, service+"\n") {
			t.Errorf("grpcurl list does not show %s:\n%s", service, services)
		}
	}
	if text := local(d.socket, "describe", "ipcd.v1.MessageService.Send").ok(t); !strings.Contains(text, "SendRequest") {
		t.Errorf("describe Send printed %s", text)
	}
	if text := local("-d", `{}`, d.socket, "grpc.health.v1.Health/Check").ok(t); !strings.Contains(text, "SERVING") {
		t.Errorf("health: %s", text)
	}
	body := base64.StdEncoding.EncodeToString([]byte("from grpcurl"))
	sent := local("-d", `{"queue":"`+q.Name()+`","messages":[{"type":7,"body":"`+body+`"}]}`, d.socket, "ipcd.v1.MessageService/Send").ok(t)
	if !strings.Contains(sent, `"firstSequence": "1"`) {
		t.Errorf("Send answered %s", sent)
	}

	// On TCP there is no reflection: the schema comes from its files.
	remote := run(d.tcp, "list")
	if remote.exit == 0 {
		t.Errorf("reflection over TCP: %s", remote.out)
	}
	schema := []string{"-import-path", filepath.Join("..", "..", "proto"), "-proto", "ipcd/v1/message_service.proto"}
	received := run(append(schema, "-d", `{"queue":"`+q.Name()+`","max_messages":1,"settle_mode":"SETTLE_MODE_CONSUME"}`, d.tcp, "ipcd.v1.MessageService/Receive")...).ok(t)
	if !strings.Contains(received, body) || !strings.Contains(received, `"type": "7"`) {
		t.Errorf("Receive answered %s", received)
	}
	missing := local("-d", `{"name":"/e2e.missing"}`, d.socket, "ipcd.v1.QueueAdminService/GetQueue")
	if missing.exit == 0 || !strings.Contains(missing.err, "NotFound") || !strings.Contains(missing.err, "QUEUE_NOT_FOUND") {
		t.Errorf("an error is shown as exit %d: %s", missing.exit, missing.err)
	}
}
