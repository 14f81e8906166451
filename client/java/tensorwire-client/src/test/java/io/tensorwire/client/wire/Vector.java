package io.tensorwire.client.wire;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/** One of the project's shared test vectors; tests/vectors/README.md says how they are laid out. */
record Vector(String name, JsonNode json, List<byte[]> frames) {
    private static final Path FOLDER =
            Path.of(System.getProperty("tensorwire.root", "../../.."), "tests", "vectors");
    private static final ObjectMapper MAPPER = new ObjectMapper();

    /** The vectors of some files. */
    static Stream<Vector> of(String... files) {
        return Arrays.stream(files).flatMap(Vector::ofFile);
    }

    private static Stream<Vector> ofFile(String file) {
        try {
            JsonNode document = MAPPER.readTree(FOLDER.resolve(file + ".json").toFile());
            List<Vector> found = new ArrayList<>();
            for (JsonNode json : document.get("vectors")) {
                List<byte[]> frames =
                        elements(json.get("frames")).map(frame -> bytes(frame.asText())).toList();
                found.add(new Vector(file + "/" + json.get("name").asText(), json, frames));
            }
            if (found.isEmpty()) {
                throw new IllegalStateException("no vectors in " + file);
            }
            return found.stream();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static Stream<JsonNode> elements(JsonNode array) {
        return StreamSupport.stream(array.spliterator(), false);
    }

    /** Hexadecimal digits in pieces between commas; {@code 00*123} is a byte so many times. */
    static byte[] bytes(String text) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        for (String piece : text.split(",")) {
            int star = piece.indexOf('*');
            byte[] part = HexFormat.of().parseHex(star < 0 ? piece : piece.substring(0, star));
            int times = star < 0 ? 1 : Integer.parseInt(piece.substring(star + 1));
            for (int time = 0; time < times; time++) {
                bytes.writeBytes(part);
            }
        }
        return bytes.toByteArray();
    }

    static ByteBuffer buffer(byte[] bytes) {
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    JsonNode message() {
        return json.get("message");
    }

    ByteBuffer head() {
        return buffer(frames.get(0));
    }

    List<ByteBuffer> tensorFrames() {
        return frames.stream().skip(1).map(Vector::buffer).toList();
    }

    /** Whether its bytes are what this library writes. */
    boolean isWritten() {
        return !json.has("decode_only");
    }

    @Override
    public String toString() {
        return name;
    }
}
