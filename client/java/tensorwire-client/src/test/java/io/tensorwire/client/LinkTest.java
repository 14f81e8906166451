package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import org.junit.jupiter.api.Test;

import zmq.Msg;

import java.util.Iterator;
import java.util.List;

class LinkTest {
    private static Msg frame(boolean more) {
        Msg frame = new Msg(new byte[] {1, 2});
        frame.setFlags(more ? Msg.MORE : 0);
        return frame;
    }

    @Test
    void theFramesOfAMessageAreReadToItsEnd() {
        Iterator<Msg> frames = List.of(frame(true), frame(false), frame(false)).iterator();
        assertEquals(2, Link.readFrames(frames::next).size());
    }

    @Test
    void aMessageThatIsCutOffIsNone() {
        Iterator<Msg> frames = List.of(frame(true)).iterator();
        assertNull(Link.readFrames(() -> frames.hasNext() ? frames.next() : null));
    }
}
