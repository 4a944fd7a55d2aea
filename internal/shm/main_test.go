package shm

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(attackEnv) != "" {
		attackMemory()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
