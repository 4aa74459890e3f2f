// The workloads of benchmarks/green in Go: green WORKLOAD WARMUP SECONDS, as benchmarks/green_child.py.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func spawn(n int) {
	done := make([]chan struct{}, n)
	for i := range done {
		c := make(chan struct{})
		done[i] = c
		go func() { close(c) }()
	}
	for _, c := range done {
		<-c
	}
}

func yield(n int) {
	done := make(chan struct{})
	other := func() {
		for i := 0; i < n/2; i++ {
			runtime.Gosched()
		}
	}
	go func() { other(); close(done) }()
	other()
	<-done
}

func pingpong(n int) {
	ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() {
		for i := 0; i < n; i++ {
			<-ping
			pong <- struct{}{}
		}
	}()
	for i := 0; i < n; i++ {
		ping <- struct{}{}
		<-pong
	}
}

func pump(capacity int) func(int) {
	return func(n int) {
		c := make(chan int, capacity)
		go func() {
			for i := 0; i < n; i++ {
				c <- i
			}
		}()
		for i := 0; i < n; i++ {
			<-c
		}
	}
}

func timeout(n int) {
	for i := 0; i < n; i++ {
		_, cancel := context.WithTimeout(context.Background(), time.Minute)
		cancel()
	}
}

func future(n int) {
	for i := 0; i < n; i++ {
		c := make(chan int, 1)
		c <- i
		<-c
	}
}

func each(n int) {
	results := make([]int, n)
	room := make(chan struct{}, 20)
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		room <- struct{}{}
		all.Add(1)
		go func(i int) {
			results[i] = i
			<-room
			all.Done()
		}(i)
	}
	all.Wait()
}

var number int64

func add(n int) {
	for i := 0; i < n; i++ {
		atomic.AddInt64(&number, 1)
	}
}

func table(n int) {
	var table sync.Map
	for i := 0; i < n; i++ {
		table.Load(i & 1023)
		table.Store(i&1023, i)
	}
}

func pool(n int) {
	objects := sync.Pool{New: func() any { return new([]byte) }}
	for i := 0; i < n; i++ {
		objects.Put(objects.Get())
	}
}

func resident() int64 {
	var size, pages int64
	file, err := os.Open("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	defer file.Close()
	fmt.Fscan(file, &size, &pages)
	return pages * int64(os.Getpagesize())
}

func park(n int) {
	before := resident()
	c := make(chan int)
	for i := 0; i < n; i++ {
		go func() { <-c }()
	}
	time.Sleep(500 * time.Millisecond)
	fmt.Printf("{\"memory\": %d}\n", (resident()-before)/int64(n))
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("ready", listener.Addr().(*net.TCPAddr).Port)
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			buffer := make([]byte, 65536)
			for {
				n, err := conn.Read(buffer)
				if err != nil {
					return
				}
				if _, err := conn.Write(buffer[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func cpu() float64 {
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Sec+used.Stime.Sec) + float64(used.Utime.Usec+used.Stime.Usec)/1e6
}

func measure(operate func(int), warmup, seconds float64) {
	batch, begun := 1, time.Now()
	for {
		start := time.Now()
		operate(batch)
		if took := time.Since(start); took < 50*time.Millisecond {
			batch = batch*2 + 1
		} else if time.Since(begun).Seconds() > warmup {
			break
		}
	}
	operations, used, start := 0, cpu(), time.Now()
	for time.Since(start).Seconds() < seconds {
		operate(batch)
		operations += batch
	}
	wall := time.Since(start).Seconds()
	json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"operations": float64(operations), "seconds": wall, "cpu": cpu() - used,
	})
}

func main() {
	runtime.GOMAXPROCS(1) // as the others: one processor
	warmup, _ := strconv.ParseFloat(os.Args[2], 64)
	seconds, _ := strconv.ParseFloat(os.Args[3], 64)
	operations := map[string]func(int){
		"spawn": spawn, "yield_": yield, "pingpong": pingpong, "unbuffered": pump(0), "buffered": pump(100),
		"timeout": timeout, "future": future, "each": each, "atomic": add, "table": table, "pool": pool,
	}
	switch name := os.Args[1]; name {
	case "park":
		park(20000)
	case "serve":
		serve()
	default:
		measure(operations[name], warmup, seconds)
	}
}
