/**
 * The messages of the protocol, version 1: bytes in, typed values out, and back. No I/O, no
 * threads, no clock.
 *
 * <p>{@code docs/protocol.md} of the project is the specification, {@code tests/vectors} are its
 * examples. This package knows of its parent the value types alone. It is the inside of the client;
 * applications have no need of it.
 */
package io.tensorwire.client.wire;
