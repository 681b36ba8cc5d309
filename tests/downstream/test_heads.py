import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from espnet_star.downstream.heads import AMSoftmax, BLSTMEncoder, flip_index

LENGTHS = torch.tensor([17, 9, 1])


def packed_reference(encoder: BLSTMEncoder, x: torch.Tensor, lengths: torch.Tensor):
    """torch's own bidirectional LSTM on a packed sequence, with the encoder's weights."""
    for ahead, back in zip(encoder.forwards, encoder.backwards, strict=True):
        lstm = torch.nn.LSTM(
            ahead.input_size, ahead.hidden_size, batch_first=True, bidirectional=True
        )
        state = dict(ahead.state_dict())
        state |= {f"{key}_reverse": value for key, value in back.state_dict().items()}
        lstm.load_state_dict(state)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
    return x


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_equals_a_packed_bidirectional_lstm(layers):
    torch.manual_seed(layers)
    encoder = BLSTMEncoder(5, hidden_size=7, num_layers=layers).eval()
    x = torch.randn(3, 17, 5)
    out, olens, _ = encoder(x, LENGTHS)
    assert olens.tolist() == LENGTHS.tolist()
    torch.testing.assert_close(out, packed_reference(encoder, x, LENGTHS), atol=1e-6, rtol=1e-5)


def test_a_projection_comes_before_the_first_layer():
    encoder = BLSTMEncoder(5, hidden_size=7, stack=2, project=6).eval()
    plain = BLSTMEncoder(6, hidden_size=7).eval()
    plain.forwards, plain.backwards = encoder.forwards, encoder.backwards
    x = torch.randn(1, 8, 5)
    projected = encoder.projection(x.reshape(1, 4, 10))
    out, olens, _ = encoder(x, torch.tensor([8]))
    assert olens.tolist() == [4]
    torch.testing.assert_close(out, plain(projected, torch.tensor([4]))[0])


def test_what_stands_in_padding_changes_nothing():
    encoder = BLSTMEncoder(5, hidden_size=7, stack=2).eval()
    x = torch.randn(3, 17, 5)
    dirty = x.clone()
    dirty[1, 9:] = float("nan")
    dirty[2, 1:] = 1e9
    torch.testing.assert_close(encoder(dirty, LENGTHS)[0], encoder(x, LENGTHS)[0])


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_an_utterance_alone_has_the_output_it_has_in_a_batch(stack):
    encoder = BLSTMEncoder(5, hidden_size=7, stack=stack).eval()
    x = torch.randn(3, 17, 5)
    out, olens, _ = encoder(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, lens, _ = encoder(x[row : row + 1, :length], LENGTHS[row : row + 1])
        assert int(lens) == int(olens[row]) == -(-length // stack)
        torch.testing.assert_close(out[row, : int(lens)], alone[0], atol=1e-6, rtol=1e-5)


def test_flip_is_its_own_inverse():
    index = flip_index(LENGTHS, 17)
    assert index[1, :9].tolist() == list(range(8, -1, -1))
    assert torch.equal(index.gather(1, index), torch.arange(17).expand(3, 17))


def test_additive_margin_by_hand():
    """Fails if the margin is taken from another speaker's cosine, or lengths count."""
    loss = AMSoftmax(4, 3, margin=0.4, scale=30.0).double()
    embeddings, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([2, 0, 1, 1, 2])
    found, accuracy, predicted = loss(embeddings, labels[:, None])
    terms = []
    for embedding, label in zip(embeddings, labels.tolist(), strict=True):
        cosines = torch.cosine_similarity(embedding[None], loss.weight)
        own = torch.exp(30 * (cosines[label] - 0.4))
        rest = sum(torch.exp(30 * cosines[j]) for j in range(3) if j != label)
        terms.append(-torch.log(own / (own + rest)))
    torch.testing.assert_close(found, torch.stack(terms).mean())
    assert accuracy == (predicted == labels).float().mean()
    torch.testing.assert_close(loss(7 * embeddings, labels)[0], found)
    assert loss(embeddings)[:2] == (None, None)


def test_margin_of_zero_is_cross_entropy():
    loss = AMSoftmax(4, 3, margin=0.0, scale=1.0)
    embeddings, labels = torch.randn(5, 4), torch.tensor([2, 0, 1, 1, 2])
    logits = torch.cosine_similarity(embeddings[:, None], loss.weight[None], dim=2)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss(embeddings, labels)[0], expected)
