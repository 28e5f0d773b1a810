//go:build tools

// The program that is built as it is, so that `go mod tidy` keeps what it needs.
package main

import _ "go.etcd.io/etcd/server/v3"
