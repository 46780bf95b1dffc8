// Go makes its system calls and resolves its names itself. Without net/http, which takes a busy
// machine long to compile.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

func main() {
	host, path, _ := strings.Cut(strings.TrimPrefix(os.Args[1], "http://"), "/")
	connection, err := net.Dial("tcp", host+":80")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(connection, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	answer, _ := io.ReadAll(connection)
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	fmt.Print(body)
}
