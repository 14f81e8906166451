/**
 * A thin client of a tensorwire server: tensors in, tensors out, from any number of threads over
 * one connection.
 *
 * <p>{@link io.tensorwire.client.TensorwireClient} calls, {@link io.tensorwire.client.Tensor} is
 * what goes in and comes out, and {@link io.tensorwire.client.RpcException} says why a call failed.
 */
package io.tensorwire.client;
