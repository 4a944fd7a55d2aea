package main

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestKernelWithoutFutexWaitvIsWarnedOf(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	warnOfPolling(zap.New(core), true)
	if logs.Len() != 0 {
		t.Errorf("warned of a kernel that has it: %v", logs.All())
	}
	warnOfPolling(zap.New(core), false)
	if all := logs.All(); len(all) != 1 || !strings.Contains(all[0].Message, "futex_waitv(2)") {
		t.Errorf("logged %v", all)
	}
}
