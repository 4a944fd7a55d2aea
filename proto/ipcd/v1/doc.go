// Package ipcdv1 is the gRPC API of ipcd, generated from the .proto files beside it. The files say
// what each call, message and field means.
package ipcdv1
