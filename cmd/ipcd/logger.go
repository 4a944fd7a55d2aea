package main

import (
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// newLogger returns a logger to standard error: lines for people on a terminal, JSON elsewhere. level
// is one of config.LogLevels, and can be changed later.
func newLogger(level string) (zap.AtomicLevel, *zap.Logger, error) {
	return newLoggerTo(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())), level)
}

func newLoggerTo(w io.Writer, terminal bool, level string) (zap.AtomicLevel, *zap.Logger, error) {
	parsed, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return parsed, nil, err
	}
	format := zap.NewProductionEncoderConfig()
	format.TimeKey = "time"
	format.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(format)
	if terminal {
		format.EncodeTime = zapcore.TimeEncoderOfLayout(time.TimeOnly)
		format.EncodeLevel = zapcore.CapitalLevelEncoder
		format.EncodeDuration = zapcore.StringDurationEncoder
		if os.Getenv("NO_COLOR") == "" {
			format.EncodeLevel = zapcore.CapitalColorLevelEncoder
		}
		encoder = zapcore.NewConsoleEncoder(format)
	}
	return parsed, zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), parsed)), nil
}
