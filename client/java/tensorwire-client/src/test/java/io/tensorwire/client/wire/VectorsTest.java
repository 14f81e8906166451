package io.tensorwire.client.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.fasterxml.jackson.databind.JsonNode;

import io.tensorwire.client.DType;
import io.tensorwire.client.RpcException;
import io.tensorwire.client.StatusCode;
import io.tensorwire.client.Tensor;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.msgpack.value.Value;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;

/** The project's shared vectors, byte for byte, in both directions. */
class VectorsTest {
    static Stream<Vector> requests() {
        return Vector.of("requests");
    }

    static Stream<Vector> replies() {
        return Vector.of("replies");
    }

    static Stream<Vector> written() {
        return Vector.of("requests", "replies").filter(Vector::isWritten);
    }

    static Stream<Vector> errors() {
        return Vector.of("errors");
    }

    static Stream<Vector> controls() {
        return Vector.of("controls");
    }

    static Stream<Vector> malformedForServers() {
        return Vector.of("malformed")
                .filter(vector -> vector.json().get("receiver").asText().equals("server"));
    }

    static Stream<Vector> malformedForClients() {
        return Vector.of("malformed")
                .filter(vector -> vector.json().get("receiver").asText().equals("client"));
    }

    @ParameterizedTest
    @MethodSource
    void requests(Vector vector) {
        ServerSide.Request request = ServerSide.read(vector.head(), vector.tensorFrames());
        assertPrefix(vector.message(), request.prefix());
        JsonNode header = vector.message().get("header");
        assertEquals(header.get("model").asText(), request.header().model());
        assertEquals(text(header.get("version")), String.valueOf(request.header().version()));
        assertEquals(text(header.get("label")), String.valueOf(request.header().label()));
        JsonNode extra = vector.message().get("extra");
        assertEquals(extra.isNull() ? Map.of() : Json.map(extra), request.extra());
        assertTensors(vector.message(), request.body(), request.header().inputs());
    }

    @ParameterizedTest
    @MethodSource
    void replies(Vector vector) {
        Prefix prefix = Prefix.read(vector.head());
        assertPrefix(vector.message(), prefix);
        ReplyHeaders headers = new ReplyHeaders();
        for (int time = 0; time < 2; time++) { // the second time the header is known
            ReplyHeader header = headers.get(vector.head(), prefix);
            assertEquals(vector.message().get("header").get("model").asText(), header.model());
            assertEquals(vector.message().get("header").get("version").asLong(), header.version());
            MessageReader reader =
                    new MessageReader(
                            prefix, vector.head(), vector.tensorFrames(), header.outputs());
            assertTensors(vector.message(), reader, header.outputs());
        }
        assertEquals(1, headers.size());
    }

    private static void assertPrefix(JsonNode message, Prefix prefix) {
        assertEquals(message.get("kind").asText(), Kind.values()[prefix.kind() - 1].name());
        assertEquals(message.get("flags").asInt(), prefix.flags());
        assertEquals(message.get("status").asInt(), prefix.status());
        assertEquals(message.get("id").asText(), Long.toUnsignedString(prefix.id()));
        assertEquals(message.get("timeout_us").asText(), Long.toUnsignedString(prefix.timeoutUs()));
        assertEquals(message.get("count").asInt(), prefix.count());
        assertEquals(message.get("header_len").asInt(), prefix.headerLen());
        assertEquals(message.get("extra_len").asInt(), prefix.extraLen());
        assertEquals(message.get("inline_limit").asLong(), prefix.inlineLimit());
        assertEquals(message.get("queue_us").asLong(), prefix.queueUs());
        assertEquals(message.get("compute_us").asLong(), prefix.computeUs());
    }

    private static void assertTensors(JsonNode message, MessageReader reader, Layout layout) {
        JsonNode rows = message.get("rows");
        assertEquals(!rows.isNull(), layout.rows());
        for (int request = 0; request < rows.size(); request++) {
            assertEquals(rows.get(request).asLong(), reader.rows(request));
        }
        List<JsonNode> wanted = Vector.elements(message.get("tensors")).toList();
        assertEquals(wanted.size(), reader.tensors().size());
        for (int index = 0; index < wanted.size(); index++) {
            Tensor tensor = reader.tensors().get(index);
            assertEquals(
                    wanted.get(index).get("name").asText(), layout.tensors().get(index).name());
            assertEquals(wanted.get(index).get("dtype").asText(), tensor.dtype().wireName());
            assertArrayEquals(Json.longs(wanted.get(index).get("shape")), tensor.shape());
            assertEquals(wanted.get(index).get("payload").asText(), Json.hex(tensor.data()));
            assertEquals(
                    wanted.get(index).get("values").toString(), Json.values(tensor).toString());
        }
    }

    @ParameterizedTest
    @MethodSource
    void written(Vector vector) {
        JsonNode message = vector.message();
        List<TensorHeader> headers = new ArrayList<>();
        List<Tensor> tensors = new ArrayList<>();
        boolean request = message.get("kind").asText().equals("REQUEST");
        JsonNode described = message.get("header").get(request ? "inputs" : "outputs");
        for (int index = 0; index < described.size(); index++) {
            JsonNode entry = described.get(index);
            DType dtype = DType.of(entry.get(1).asText());
            headers.add(new TensorHeader(entry.get(0).asText(), dtype, Json.longs(entry.get(2))));
            tensors.add(Json.tensor(message.get("tensors").get(index)));
        }
        Layout layout = new Layout(headers, !message.get("rows").isNull());
        byte[] header =
                request
                        ? Json.requestHeader(message.get("header"), layout).encode()
                        : Json.replyHeader(message.get("header"), layout);
        byte[] extra = Json.extra(message.get("extra"));
        Prefix prefix = Json.prefix(message, header.length, extra.length);
        int[] rows = layout.rows() ? Json.ints(message.get("rows")) : null;
        List<ByteBuffer> frames =
                MessageWriter.write(
                        prefix, header, extra, layout, rows, RandomMessages.whole(tensors));
        assertEquals(vector.frames().size(), frames.size());
        for (int index = 0; index < frames.size(); index++) {
            assertEquals(
                    HexFormat.of().formatHex(vector.frames().get(index)),
                    Json.hex(frames.get(index)));
        }
    }

    @ParameterizedTest
    @MethodSource
    void errors(Vector vector) {
        Prefix prefix = Prefix.read(vector.head());
        assertPrefix(vector.message(), prefix);
        byte[] body =
                ServerSide.bytes(
                        vector.head(), Prefix.SIZE + prefix.headerLen(), prefix.extraLen());
        String text = Bodies.errorText(body);
        assertEquals(vector.message().get("text").asText(), text);
        RpcException error = new RpcException(prefix.status(), text);
        assertEquals(vector.message().get("status").asInt(), error.code());
        assertEquals(vector.message().get("status_name").asText(), StatusCode.nameOf(error.code()));
        if (vector.isWritten()) {
            byte[] written = Json.errorBody(text);
            Prefix same = Json.prefix(vector.message(), 0, written.length);
            assertEquals(Json.hex(vector.head()), Json.hex(MessageWriter.write(same, written)));
        }
    }

    @ParameterizedTest
    @MethodSource
    void controls(Vector vector) {
        JsonNode message = vector.message();
        Prefix prefix = Prefix.read(vector.head());
        assertPrefix(message, prefix);
        byte[] body = ServerSide.bytes(vector.head(), Prefix.SIZE, prefix.headerLen());
        byte[] written = body;
        if (prefix.is(Kind.CONTROL)) {
            Map<String, Value> params =
                    message.get("body").has("params")
                            ? Json.ordered(message.get("body").get("params"))
                            : new TreeMap<>();
            written = Bodies.call(message.get("body").get("method").asText(), params);
        } else if (body.length > 0) {
            assertEquals(Json.value(message.get("body")), Bodies.result(body));
        }
        Prefix same =
                new Prefix(
                        prefix.kind(),
                        0,
                        0,
                        prefix.id(),
                        prefix.timeoutUs(),
                        prefix.count(),
                        written.length,
                        0,
                        0,
                        0,
                        0);
        assertEquals(Json.hex(vector.head()), Json.hex(MessageWriter.write(same, written)));
    }

    @ParameterizedTest
    @MethodSource
    void malformedForServers(Vector vector) {
        assertEquals(outcome(vector), ServerSide.outcome(vector.head(), vector.tensorFrames()));
    }

    @ParameterizedTest
    @MethodSource
    void malformedForClients(Vector vector) {
        ReplyHeaders headers = new ReplyHeaders();
        for (int time = 0;
                time < 2;
                time++) { // a refused header must not be remembered as a good one
            assertThrows(
                    ProtocolException.class,
                    () -> {
                        Prefix prefix = Prefix.read(vector.head());
                        Layout layout = headers.get(vector.head(), prefix).outputs();
                        new MessageReader(prefix, vector.head(), vector.tensorFrames(), layout);
                    });
        }
        assertEquals(outcome(vector), ServerSide.refusal(vector.head(), "failed"));
    }

    private static String outcome(Vector vector) {
        JsonNode outcome = vector.json().get("outcome");
        String error = outcome.get("error").asText();
        return outcome.has("id")
                ? error + " " + outcome.get("id").asText() + " " + outcome.get("count").asInt()
                : error;
    }

    private static String text(JsonNode node) {
        return node == null || node.isNull() ? "null" : node.asText();
    }
}
