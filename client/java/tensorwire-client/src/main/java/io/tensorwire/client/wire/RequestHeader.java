package io.tensorwire.client.wire;

import org.msgpack.core.MessagePacker;

import java.io.IOException;
import java.util.List;

/**
 * The header of a REQUEST: only what is the same for every request of one kind.
 *
 * @param model its name
 * @param version by number, or null
 * @param label by label, or null; not both
 * @param outputs the outputs wanted, in this order; null: all
 * @param inputs the tensors
 */
public record RequestHeader(
        String model, Long version, String label, List<String> outputs, Layout inputs) {
    /**
     * The bytes on the wire: keys that have their default value are left out.
     *
     * @return msgpack
     */
    public byte[] encode() {
        int keys = 2 + count(version) + count(label) + count(outputs) + (inputs.rows() ? 0 : 1);
        return Msgpack.write(
                packer -> {
                    packer.packMapHeader(keys)
                            .packString("model")
                            .packString(model)
                            .packString("inputs");
                    packTensors(packer, inputs.tensors());
                    if (version != null) {
                        packer.packString("version").packLong(version);
                    }
                    if (label != null) {
                        packer.packString("label").packString(label);
                    }
                    if (outputs != null) {
                        packer.packString("outputs").packArrayHeader(outputs.size());
                        for (String output : outputs) {
                            packer.packString(output);
                        }
                    }
                    if (!inputs.rows()) {
                        packer.packString("rows").packBoolean(false);
                    }
                });
    }

    private static int count(Object value) {
        return value == null ? 0 : 1;
    }

    private static void packTensors(MessagePacker packer, List<TensorHeader> tensors)
            throws IOException {
        packer.packArrayHeader(tensors.size());
        for (TensorHeader tensor : tensors) {
            long[] shape = tensor.shape();
            packer.packArrayHeader(3)
                    .packString(tensor.name())
                    .packString(tensor.dtype().wireName());
            packer.packArrayHeader(shape.length);
            for (long dimension : shape) {
                packer.packLong(dimension);
            }
        }
    }
}
