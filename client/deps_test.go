package client

import (
	"os/exec"
	"strings"
	"testing"
)

// A program that uses the client gets grpc and protobuf, what these need, and nothing of the daemon.
func TestTheClientDependsOnLittle(t *testing.T) {
	const module = "github.com/ipcd/ipcd/"
	allowed := []string{
		"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc",
		"golang.org/x/sys", "golang.org/x/net", "golang.org/x/text",
		module + "proto", module + "client", module + "internal/limits", module + "internal/reason",
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 10 {
		t.Fatalf("go list names only %q", packages)
	}
next:
	for _, p := range packages {
		for _, a := range allowed {
			if p == a || strings.HasPrefix(p, a+"/") {
				continue next
			}
		}
		t.Errorf("client depends on %s", p)
	}
}
