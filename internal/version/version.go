// Package version says which build of ipcd this is.
package version

import (
	"fmt"
	"runtime"
)

// Version is the release, stamped when linking:
//
//	go build -ldflags "-X github.com/ipcd/ipcd/internal/version.Version=v1.2.3"
var Version = "dev"

// String returns the release, the Go version and the platform, such as "v1.2.3 go1.26 linux/amd64".
func String() string {
	return fmt.Sprintf("%s %s %s/%s", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
