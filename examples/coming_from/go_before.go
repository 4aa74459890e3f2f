// A worker pool behind a socket, in Go: clients send numbers, a line each, and get their prime factors.
//
// Run: go run go_before.go 127.0.0.1:0
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

type job struct {
	number int
	answer chan<- string
}

func factors(n int) string {
	var found []string
	for p := 2; p*p <= n; p++ {
		for n%p == 0 {
			found = append(found, strconv.Itoa(p))
			n /= p
		}
	}
	if n > 1 {
		found = append(found, strconv.Itoa(n))
	}
	return strings.Join(found, " ")
}

func work(jobs <-chan job) {
	for j := range jobs {
		j.answer <- fmt.Sprintf("%d = %s", j.number, factors(j.number))
	}
}

func serve(ctx context.Context, conn net.Conn, jobs chan<- job) {
	defer conn.Close()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-ctx.Done():
			conn.Close()
		case <-done:
		}
	}()
	answer := make(chan string, 1)
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		number, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			fmt.Fprintln(conn, "a number, please")
			continue
		}
		select {
		case jobs <- job{number, answer}:
			fmt.Fprintln(conn, <-answer)
		case <-ctx.Done():
			return
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	go func() { <-ctx.Done(); listener.Close() }()

	jobs := make(chan job)
	var workers, clients sync.WaitGroup
	for i := 0; i < 4; i++ {
		workers.Add(1)
		go func() { defer workers.Done(); work(jobs) }()
	}
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			continue
		}
		clients.Add(1)
		go func() { defer clients.Done(); serve(ctx, conn, jobs) }()
	}
	clients.Wait()
	close(jobs)
	workers.Wait()
	fmt.Println("bye")
}
