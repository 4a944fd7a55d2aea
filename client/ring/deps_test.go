//go:build linux

package ring

import (
	"os/exec"
	"strings"
	"testing"
)

// A program that uses rings gets x/sys and nothing else: no gRPC, no protobuf, nothing of the daemon. Of
// grpc there is only what package codes, the names of status codes, needs.
func TestRingsDependOnLittle(t *testing.T) {
	const module = "github.com/ipcd/ipcd/"
	const grpc = "google.golang.org/grpc/"
	allowed := []string{
		"golang.org/x/sys/unix", module + "client/ring", module + "internal/attach", module + "internal/shm", module + "internal/limits", module + "internal/reason",
		grpc + "codes", grpc + "internal", grpc + "connectivity", grpc + "grpclog", grpc + "grpclog/internal", grpc + "serviceconfig",
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 5 {
		t.Fatalf("go list names only %q", packages)
	}
next:
	for _, p := range packages {
		for _, a := range allowed {
			if p == a {
				continue next
			}
		}
		t.Errorf("client/ring depends on %s", p)
	}
}
